"""`python -m vnet.api`: vnetd. `--auto` says that a command started it: it ends when it has nothing to do."""

from __future__ import annotations

import argparse
import sys

from vnet.api.daemon import Mode, serve
from vnet.base import objects
from vnet.base.errors import Exit, VnetError
from vnet.base.logs import LogFormat


def main() -> int:
    """Run the daemon to its exit code."""
    objects.expect_many()
    try:
        return serve(_mode(sys.argv[1:]))
    except VnetError as error:
        print(f"vnet: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _mode(words: list[str]) -> Mode:
    parser = argparse.ArgumentParser(prog="vnetd", allow_abbrev=False)
    parser.add_argument("--auto", action="store_true", help="end when there is nothing to do")
    parser.add_argument("--metrics", default="", metavar="HOST:PORT", help="tell numbers and health on TCP")
    parser.add_argument("--log-format", type=LogFormat, default=LogFormat.TEXT, choices=list(LogFormat))
    parser.add_argument("-v", "--verbose", action="store_true", help="log requests and what is done for them")
    return Mode(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    sys.exit(main())
