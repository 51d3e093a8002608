"""The agent of a node: how it is started, and the small program that it is.

``piolet record --agent --logbook DIR`` reads the settings and becomes, by exec, ``python -m piolet.record SPEC``, which
loads little, elects itself, and supervises a sampler.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from piolet.core.errors import PioletError, UsageError
from piolet.record.spec import AgentSpec, parse

_STAND_BY_S = 0.5


def agent_argv(
    logbook: Path,
    *,
    node: str = "",
    interval_s: float | None = None,
    rates: Sequence[str] = (),
    standby: bool = False,
    whole_job: bool = False,
) -> list[str]:
    """Return the command line of an agent that records the node it runs on into `logbook`.

    It ends with SIGTERM or SIGUSR1 (which srun passes on), or with the process that started it. `node` is its name in
    the logbook (default: Slurm's, else the host's), `interval_s` the sampling period and `rates` those of families
    (default: the settings). Of several on a node one records; the others say so and exit 0, or, with `standby`, wait to
    take its place. Slurm ends a step on a node with its last task, so a step of two such tasks a node outlives the kill
    of one. With `whole_job` all processes of the Slurm job are the job's own, not only those that were told of the
    recorder.
    """
    options = ["--node", node] if node else []
    options += [] if interval_s is None else ["--interval", f"{interval_s:g}"]
    options += ["--rate", ",".join(rates)] if rates else []
    options += ["--standby"] if standby else []
    options += ["--whole-job"] if whole_job else []
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
    if spec.election is not None:
        return supervisor.supervise(spec, socket.socket(fileno=spec.election))
    try:
        elected = election.elect(spec.address)
    except PioletError as error:
        sys.stderr.write(f"piolet: {error}\n")
        return error.exit_status
    if elected is None and spec.standby:
        spec = replace(spec, restarted="the agent was killed; the one that stood by took its place")
        elected = _stand_by(spec)
    elif elected is None:
        sys.stderr.write(f"piolet: another agent records {spec.node} already\n")
    return 0 if elected is None else supervisor.supervise(spec, elected)


def _stand_by(spec: AgentSpec) -> socket.socket | None:
    """Wait until the node has no agent, and become it; None if this one is asked to end before."""
    from piolet.record import election  # noqa: PLC0415 - as above
    from piolet.record.wakeup import Wakeup  # noqa: PLC0415 - as above

    wakeup = Wakeup()
    while not wakeup.asked_to_end:
        if wakeup.wait(_STAND_BY_S, spec.follow):
            return None
        if not wakeup.asked_to_end and (elected := election.bind(spec.address)):
            return elected
    return None
