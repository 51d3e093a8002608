"""The agent of a node: how it is started, and the small program that it is.

``piolet record --agent --logbook DIR`` reads the settings and becomes, by exec, ``python -m piolet.record SPEC``, which
loads little, elects itself, and supervises a sampler.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from piolet.core.errors import PioletError, UsageError
from piolet.record.spec import AgentSpec, parse


def agent_argv(logbook: Path, *, node: str = "", interval_s: float | None = None) -> list[str]:
    """Return the command line of an agent that records the node it runs on into `logbook` until SIGTERM.

    `node` is its name in the logbook (default: Slurm's, else the host's), `interval_s` the sampling period (default:
    the setting). Run it once a node; a second one on a node says so and exits 0.
    """
    options = ["--node", node] if node else []
    options += [] if interval_s is None else ["--interval", f"{interval_s:g}"]
    return [sys.executable, "-P", "-m", "piolet", "record", "--agent", "--logbook", str(logbook), *options]


def run_agent(spec: AgentSpec) -> NoReturn:
    """Become the agent that `spec` describes; the process id stays.

    Raises:
        UsageError: the logbook is not there.
    """
    if not spec.logbook.is_dir():
        raise UsageError(
            "there is no logbook to record into",
            where=str(spec.logbook),
            remedy="give the directory of a job's logbook that this node can see",
        )
    for descriptor in spec.descriptors:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - its own interface
    argv = spec.argv()
    os.execv(argv[0], argv)  # noqa: S606 - Piolet itself, no shell


def main(argument: str) -> int:
    """Record as the spec in `argument` says; return the exit status."""
    from piolet.record import election, supervisor  # noqa: PLC0415 - what only the agent itself needs

    spec = parse(argument)
    try:
        elected = election.elect(spec.address) if spec.election is None else socket.socket(fileno=spec.election)
    except PioletError as error:
        sys.stderr.write(f"piolet: {error}\n")
        return error.exit_status
    if elected is None:
        sys.stderr.write(f"piolet: another agent records {spec.node} already\n")
        return 0
    return supervisor.supervise(spec, elected)
