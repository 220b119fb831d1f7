"""`python -m vnet`: the same as `vnet`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it still loads is no traceback."""
    if sys.stdout is None:  # `>&-`
        sys.exit("vnet: standard output is closed")
    try:
        from vnet.base import objects
        from vnet.cli.app import main as run

        objects.expect_many()
        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
