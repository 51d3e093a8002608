"""What a collector is: one file, `read` apart from a pure `derive`, an entry point of the group `piolet.collectors`.

A collector is a class that takes a Context and has `collect`. It may fail or hang at any time: its worker turns that
into an event, and the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from piolet.core.errors import PioletError, StorageError
from piolet.core.nouns import Severity
from piolet.tools.kmsg import KernelLog
from piolet.tools.nvml import Device

Entry = tuple[str, Mapping[str, Any]]
"""A family and a row of it, without `node`, which the sampler adds."""


@dataclass(frozen=True, slots=True)
class Context:
    """What collectors know of the job and share.

    `kernel_log` is open at the place where the recording began, or the error that says why it is not. `devices` is
    filled by whoever reads the GPUs first; it stays empty where there are none. `metrics` names the socket to which
    programs report. `node`, `logbook`, `interval_s`, `dcgm` and `whole_job` are the agent's; see AgentSpec. `profile`
    is what DCGM said last of each GPU, by UUID, for the rows of NVML to take. `pid` is a process in the job's cgroup.
    """

    environ: Mapping[str, str]
    kernel_log: KernelLog | StorageError
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    metrics: str = ""
    node: str = ""
    logbook: Path = Path()
    interval_s: float = 1.0
    dcgm: str = "auto"
    pid: str = "self"
    whole_job: bool = False
    devices: list[Device] = field(default_factory=list)
    profile: dict[str, dict[str, float | None]] = field(default_factory=dict)


class NotApplicable(PioletError):  # noqa: N818 - reads as the fact it states
    """The node has nothing that a collector could read: no trouble, unlike a source that is there and fails."""


class Collector(Protocol):
    """Samples one source. The constructor takes a Context and raises if the source cannot work here.

    NotApplicable says that the source is not there at all; any other error that it should have worked.

    One that has `least_interval_s` is not asked more often than that, unless the user gave the `family` that it names
    a rate; see rates.
    """

    def collect(self, time_ns: int) -> Iterable[Entry]:
        """Return the rows of the sampling time `time_ns` (UTC)."""
        ...


@runtime_checkable
class Listener(Collector, Protocol):
    """A collector to which others send: what came after its last sampling time is still to be written at the end."""

    def finish(self, time_ns: int) -> Iterable[Entry]:
        """Return the rows that are left; called from another thread than `collect`, and it must not wait."""
        ...


def event(
    time_ns: int,
    kind: str,
    code: str,
    message: str,
    *,
    severity: Severity = Severity.INFO,
    gpu: int | None = None,
    uuid: str | None = None,
) -> Entry:
    """Return a row of the family `events`."""
    row = {"time_ns": time_ns, "kind": kind, "code": code, "severity": severity.value, "message": message}
    return "events", row | {"gpu": gpu, "uuid": uuid}


def rate(before: float | None, after: float | None, elapsed_s: float) -> float | None:
    """Return the rate of a counter per second; None if unknown, reset (it fell) or read at the same moment."""
    if before is None or after is None or after < before or elapsed_s <= 0:
        return None
    return (after - before) / elapsed_s
