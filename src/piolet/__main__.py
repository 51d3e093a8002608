"""`python -m piolet`: how Piolet starts itself on nodes."""

from piolet.cli.main import main

main()
