"""`python -m kms`."""

from kms.cli import main

main(prog_name="python -m kms")
