"""`python -m vnet.api`: vnetd. `--auto` says that a command started it: it ends when it has nothing to do."""

from __future__ import annotations

import sys

from vnet.api.daemon import serve
from vnet.base import objects
from vnet.base.errors import Exit, VnetError


def main() -> int:
    """Run the daemon to its exit code."""
    objects.expect_many()
    try:
        return serve("--auto" in sys.argv[1:])
    except VnetError as error:
        print(f"vnet: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
