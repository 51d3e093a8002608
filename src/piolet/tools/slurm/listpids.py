"""scontrol listpids: the processes of every step on a node, as its own slurmd knows; the controller is not asked."""

from __future__ import annotations

from piolet.core.errors import ToolError
from piolet.core.run import Runner
from piolet.tools.slurm import errors

_NOTHING = "No job steps exist"
_FIELDS = 5


def argv(node: str) -> list[str]:
    """Return the command; the node's name matters only where several slurmd share a machine."""
    return ["scontrol", "listpids", "*", node]


def parse(text: str) -> dict[int, int]:
    """Return a process of each job, by the job's number."""
    found: dict[int, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == _FIELDS and words[0].isdigit() and words[1].isdigit() and int(words[0]) > 0:
            found.setdefault(int(words[1]), int(words[0]))
    return found


def pids(runner: Runner, node: str) -> dict[int, int]:
    """Return a process of each job on the node that this runs on.

    Raises:
        SlurmUnavailable: its slurmd does not answer.
    """
    try:
        return parse(errors.call(runner, argv(node)).stdout)
    except ToolError as error:
        if _NOTHING in error.stderr_tail + error.stdout:
            return {}
        raise
