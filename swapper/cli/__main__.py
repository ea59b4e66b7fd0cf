"""`python -m swapper.cli` is `swapper`."""

from swapper.cli import main

main(prog_name="swapper")
