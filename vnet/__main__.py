"""The entry point of `vnet`, and of `python -m vnet`."""

import signal
import sys


def main() -> None:
    """Run the command line. Ctrl-C while it still loads is no traceback, and once it is done no failure."""
    if sys.stdout is None:  # `>&-`
        sys.exit("vnet: standard output is closed")
    try:
        from vnet.base import objects
        from vnet.cli.app import main as run

        objects.expect_many()
        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interpreter, on its way out, would die of it


if __name__ == "__main__":
    main()
