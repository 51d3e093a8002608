"""`python -m piolet.record SPEC`: what an agent becomes; see piolet.record.agent."""

import sys

from piolet.record.agent import main

sys.exit(main(sys.argv[1]))
