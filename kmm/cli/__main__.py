"""`python -m kmm.cli`: the command where its script is not on the path."""

from kmm.cli import main

main()
