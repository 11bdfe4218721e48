"""`python -m mm35local`: the same as the `mm35` command."""

from mm35local.cli.app import main

if __name__ == "__main__":
    main()
