"""What an agent is to do, as a value that travels through exec: one JSON argument."""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

_NODE = "{node}"


def metrics_name(logbook: Path) -> str:
    """Return the name of the sockets to which programs report, one a node: `{node}` is for the node's name."""
    return f"piolet-metrics/{_mark(logbook.absolute())}/{_NODE}"


def _mark(logbook: Path) -> str:
    return f"{zlib.crc32(str(logbook).encode('utf-8', 'surrogateescape')):08x}"


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent: where it records, how often, and what it inherits as open descriptors.

    `follow` are pidfds of the programs whose end ends the recording; without any, a signal ends it. `election` is
    the socket that makes this agent the node's only one. `owns_job` says that job.json is this agent's to complete.
    `restarted` says why an earlier sampler of this recording ended. A `standby` that is not elected waits until it is.
    `whole_job` says that all processes of the Slurm job are looked at, also those that nobody told of the recorder.
    `dcgm` is the setting: auto, off, or the address of an exporter. `intervals_s` are those of families that the user
    gave a rate of their own; see rates. `exporter` is the address (HOST:PORT) at which it serves /metrics; "": nowhere.
    """

    logbook: Path
    node: str
    interval_s: float
    flush_s: float
    kernel_log: Path
    owns_job: bool = False
    follow: tuple[int, ...] = ()
    election: int | None = None
    kernel_log_position: int | None = None
    restarted: str = ""
    standby: bool = False
    whole_job: bool = False
    dcgm: str = "auto"
    intervals_s: dict[str, float] = field(default_factory=dict)
    exporter: str = ""

    @property
    def address(self) -> str:
        """The abstract socket's name: one per user, node and logbook, which is one per job."""
        return f"\0piolet-record/{self.node[:40]}/{self.logbook.name[:30]}/{_mark(self.logbook)}"

    @property
    def metrics(self) -> str:
        """The name to which programs on this node report."""
        return metrics_name(self.logbook).replace(_NODE, self.node)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Every descriptor that must survive an exec."""
        kept = (*self.follow, self.election, self.kernel_log_position)
        return tuple(descriptor for descriptor in kept if descriptor is not None)

    def argv(self) -> list[str]:
        """Return the command line that becomes this agent."""
        fields = asdict(self) | {"logbook": str(self.logbook), "kernel_log": str(self.kernel_log)}
        return [sys.executable, "-P", "-m", "piolet.record", json.dumps(fields)]


def parse(text: str) -> AgentSpec:
    """Return the spec that `argv` wrote."""
    fields = json.loads(text)
    spec = AgentSpec(**fields)
    return replace(spec, logbook=Path(spec.logbook), kernel_log=Path(spec.kernel_log), follow=tuple(spec.follow))
