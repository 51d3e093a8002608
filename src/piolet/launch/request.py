"""What the user asks `piolet run` for, as one value that travels from the login node into the job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from piolet.core.errors import UsageError
from piolet.core.text import did_you_mean
from piolet.launch import copies, doom, warning, watching
from piolet.launch.copies import Copy
from piolet.logbook import records


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One run. `nodes` is what the program gets; `spares` more are held until vetting has chosen.

    `environment` is an EDF name, an EDF path or a compiled plan (empty: no container); `protocol` is a vetting protocol
    (empty: no vetting). `gpus_per_node` None asks for all that every node has. `restarts` is how often the job may be
    submitted again when nodes fail it; `attempt` is 0 but in a script of Piolet's, which counts from 1 and names the
    job before in `previous_job`. `abort_on` names signs on which the program is ended early, and `heartbeat_s` how long
    it may give no sign of life. `signal` is what it gets before the time limit (``USR1@300``); `chain` is how many
    jobs may go on after this one where time was too short. `checkpoint_s` is how long training stands still for one.
    `copies` are on every node while the program runs.
    """

    command: tuple[str, ...]
    nodes: int = 1
    spares: int = 0
    tasks_per_node: int = 1
    environment: str = ""
    protocol: str = ""
    record: bool = False
    gpus_per_node: int | None = None
    partition: str = ""
    account: str = ""
    time_limit: str = ""
    exclude: str = ""
    name: str = ""
    cwd: Path = Path()
    restarts: int = 0
    attempt: int = 0
    previous_job: str = ""
    abort_on: tuple[str, ...] = ()
    heartbeat_s: float | None = None
    signal: str = ""
    chain: int = 0
    checkpoint_s: float | None = None
    copies: tuple[Copy, ...] = ()

    @property
    def job_name(self) -> str:
        """The name given, else that of the program: the first script among the arguments, or the command."""
        scripts = [word for word in self.command if PurePath(word).suffix in {".py", ".sh"}]
        return self.name or PurePath((scripts or list(self.command))[0]).name

    @property
    def ranks(self) -> int:
        """Number of tasks of the program."""
        return self.nodes * self.tasks_per_node

    def recorded(self) -> records.Request:
        """Return the request as the logbook keeps it."""
        return records.Request(self.nodes, self.spares, self.environment, self.protocol, self.record)


@dataclass(frozen=True, slots=True)
class How:
    """How a run is carried out, apart from what it is; `max_wait_s` is how long its job may wait in the queue.

    `het_group` is the component of a heterogeneous job on which it runs.
    """

    local: bool = False
    simulate: str = ""
    detach: bool = False
    dry_run: bool = False
    guard: bool = False
    max_wait_s: float | None = None
    het_group: int | None = None


def check(request: RunRequest) -> RunRequest:
    """Return `request` if it makes sense on its own, else raise a UsageError."""
    if not request.command:
        raise UsageError("no program to run", remedy="give it after --, as in: piolet run -N 2 -- python train.py")
    if request.nodes < 1 or request.tasks_per_node < 1 or request.spares < 0:
        raise UsageError(
            f"{request.nodes} nodes, {request.tasks_per_node} tasks per node and {request.spares} spares",
            remedy="ask for at least one node and one task, and no negative number of spares",
        )
    if request.restarts < 0:
        raise UsageError(f"--restarts cannot be {request.restarts}", remedy="0 or more; 0 submits the job once")
    _check_signs(request)
    copies.check(request.copies)
    if request.chain < 0:
        raise UsageError(f"--chain cannot be {request.chain}", remedy="0 or more jobs after the first")
    if request.signal:
        warning.parse(request.signal)
    if request.spares and not request.protocol:
        raise UsageError(
            "spares are of no use without vetting, which chooses among the nodes",
            remedy="add --vet quick, or leave --spares out",
        )
    return request


def _check_signs(request: RunRequest) -> None:
    known = (*watching.SIGNS, *doom.SIGNS)
    unknown = [sign for sign in request.abort_on if sign not in known]
    if unknown:
        raise UsageError(f'--abort-on does not know "{unknown[0]}"', remedy=did_you_mean(unknown[0], known))
    recorded = [f"--abort-on {sign}" for sign in request.abort_on if sign in watching.SIGNS]
    recorded += [] if request.heartbeat_s is None else ["--heartbeat"]
    if recorded and not request.record:
        raise UsageError(f"{recorded[0]} goes by what is recorded, and nothing is", remedy="add --record")
