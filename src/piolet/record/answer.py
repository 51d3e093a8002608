"""`python -m piolet.record.answer`: a node says in one line of JSON which GPUs the job has on it."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict

from piolet.core.errors import PioletError
from piolet.record.devices import inventory


def main() -> int:
    """Print the node's answer; return the exit status."""
    try:
        gpus = inventory(os.environ)
    except PioletError as error:
        sys.stderr.write(f"piolet: {error}\n")
        return error.exit_status
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]
    sys.stdout.write(json.dumps({"node": node, "gpus": [asdict(gpu) for gpu in gpus]}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
