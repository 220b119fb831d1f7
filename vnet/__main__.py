"""`python -m vnet`: the same as `vnet`."""

from vnet.cli.app import main

if __name__ == "__main__":
    main()
