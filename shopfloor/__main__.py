"""`python -m shopfloor` is the same as `shopfloor`."""

from shopfloor.cli import main

main()
