"""The JSON schema (draft-07) of the topology language, made of the table that the reader goes by.

`python -m vnet.topology.schema` writes it to `docs/topology.schema.json`, for editors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vnet.topology.language import TOPOLOGY
from vnet.topology.shape import Definitions

PUBLISHED = Path("docs/topology.schema.json")


def json_schema() -> dict[str, Any]:
    """The schema as an object ready for `json.dumps`."""
    definitions: Definitions = {}
    root = TOPOLOGY.schema(definitions)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "vnet topology",
        "allOf": [root],
        "definitions": dict(sorted(definitions.items())),
    }


def text() -> str:
    """The schema as it is published."""
    return json.dumps(json_schema(), indent=2) + "\n"


def main(arguments: list[str]) -> None:
    """Writes the schema to the file given, by default the published one; `-` is standard output."""
    target = arguments[0] if arguments else str(PUBLISHED)
    if target == "-":
        sys.stdout.write(text())
    else:
        Path(target).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
