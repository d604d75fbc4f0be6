"""``python -m specphoto`` is the command line."""

from specphoto.cli import main

main()
