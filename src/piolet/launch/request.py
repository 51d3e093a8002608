"""What the user asks `piolet run` for, as one value that travels from the login node into the job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from piolet.core.errors import UsageError
from piolet.logbook import records


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One run. `nodes` is what the program gets; `spares` more are held until vetting has chosen.

    `environment` is an EDF name, an EDF path or a compiled plan (empty: no container); `protocol` is a vetting protocol
    (empty: no vetting). `gpus_per_node` None asks for all that every node has.
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


def check(request: RunRequest) -> RunRequest:
    """Return `request` if it makes sense on its own, else raise a UsageError."""
    if not request.command:
        raise UsageError("no program to run", remedy="give it after --, as in: piolet run -N 2 -- python train.py")
    if request.nodes < 1 or request.tasks_per_node < 1 or request.spares < 0:
        raise UsageError(
            f"{request.nodes} nodes, {request.tasks_per_node} tasks per node and {request.spares} spares",
            remedy="ask for at least one node and one task, and no negative number of spares",
        )
    if request.spares and not request.protocol:
        raise UsageError(
            "spares are of no use without vetting, which chooses among the nodes",
            remedy="add --vet quick, or leave --spares out",
        )
    return request
