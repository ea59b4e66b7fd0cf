"""`python -m swapper`: the command, where it is not on the PATH."""

from swapper.cli import main

if __name__ == "__main__":
    main()
