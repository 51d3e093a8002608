"""`python -m piolet.vet PROTOCOL`: the nodes' side of `piolet vet run`, without the command line around it.

It is started on every node before every run: the collector of garbage would look at modules, and find none.
"""

import gc
import sys

gc.disable()

from piolet.vet.node import print_answer  # noqa: E402 - see above
from piolet.vet.protocol import from_json  # noqa: E402 - same

print_answer(from_json(sys.argv[1]))
