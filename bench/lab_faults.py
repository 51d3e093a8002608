"""The incidents of bench/lab_incidents.py: what each does to a job of a lab, and what diagnosis is to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from piolet.lab.gpu_faults import FaultKind

GPUS = 4
TRAINING = "startup 8; loop forever; compute 2 level=0.9; communication 0.5; end"
IDLE = "idle 100000"
SHORT_S, LONG_S = 150, 230
"""Seconds that a job takes; a hang is one only after two minutes."""


@dataclass(slots=True)
class Run:
    """One job on a pair of nodes: the fault's place, what to find, what the program is told, what is done to it."""

    nodes: tuple[str, str]
    node: str
    gpu: int
    begin_s: float
    strength: float
    expected: list[str] = field(default_factory=list)
    seconds: int = SHORT_S
    program: list[str] = field(default_factory=list)
    scripts: dict[tuple[str, int], str] = field(default_factory=dict)
    later: list[tuple[str, int, FaultKind, str]] = field(default_factory=list)
    job_wide: set[str] = field(default_factory=set)

    def fault(self, kind: FaultKind, argument: str = "") -> None:
        """Do something to the GPU of this run when its time comes."""
        self.later.append((self.node, self.gpu, kind, argument))

    @property
    def every_gpu(self) -> list[tuple[str, int]]:
        """All GPUs of the job."""
        return [(node, gpu) for node in self.nodes for gpu in range(GPUS)]


def thermal(run: Run) -> None:
    """A GPU that is too hot."""
    run.fault(FaultKind.THROTTLE, "thermal")
    run.expected.append("thermal-throttle")


def power(run: Run) -> None:
    """A GPU on an external power brake."""
    run.fault(FaultKind.THROTTLE, "power")
    run.expected.append("power-throttle")


def slow(run: Run) -> None:
    """A GPU at a lower clock, without a reason."""
    run.fault(FaultKind.SLOW, f"{0.55 + 0.3 * run.strength:.2f}")
    run.expected.append("slow-gpu")


def xid(number: int) -> Callable[[Run], None]:
    """An error that the driver reports."""

    def xid(run: Run) -> None:
        run.fault(FaultKind.XID, str(number))
        run.expected.append("xid")

    return xid


def ecc(run: Run) -> None:
    """Uncorrected memory errors; the driver reports them as Xid 48, which is the same cause."""
    run.fault(FaultKind.ECC_UNCORRECTED, str(1 + round(4 * run.strength)))
    run.expected.append("xid")


def nvlink(run: Run) -> None:
    """CRC errors and replays of a link."""
    run.fault(FaultKind.NVLINK_ERRORS, str(100 + round(900 * run.strength)))
    run.expected.append("nvlink")


def idle(run: Run) -> None:
    """A GPU that no rank uses."""
    run.scripts[run.node, run.gpu] = IDLE
    run.expected.append("idle-gpu")


def imbalance(run: Run) -> None:
    """A pipeline stage with less to do: the same GPU of every node."""
    level = 0.25 + 0.35 * run.strength
    for node in run.nodes:
        run.scripts[node, run.gpu] = TRAINING.replace("level=0.9", f"level={level:.2f}")
    run.expected.append("imbalance")
    run.job_wide.add("imbalance")


def launch_bound(run: Run) -> None:
    """Small kernels all the time."""
    for place in run.every_gpu:
        run.scripts[place] = "startup 8; loop forever; communication 10; end"
    run.expected.append("launch-bound")
    run.job_wide.add("launch-bound")


def hang(run: Run) -> None:
    """One rank stops, the others wait for it in a collective."""
    run.seconds = LONG_S
    steps = f"startup 8; loop {round(run.begin_s / 2.5)}; compute 2 level=0.9; communication 0.5; end"
    for place in run.every_gpu:
        run.scripts[place] = f"{steps}; {'idle' if place == (run.node, run.gpu) else 'hang'} 100000"
    run.expected.append("hang")


def failure(run: Run) -> None:
    """A rank that raises; the other one only notices."""
    run.program += ["--fail", str(run.nodes.index(run.node)), "--at", f"{SHORT_S - 30}"]
    run.expected.append("first-failure")
    run.job_wide.add("first-failure")


def checkpoint(run: Run) -> None:
    """One checkpoint takes far longer than the others."""
    run.program += ["--stall", f"{20 + 10 * run.strength:.0f}"]
    run.expected.append("checkpoint-stall")
    run.job_wide.add("checkpoint-stall")


def both(*each: Callable[[Run], None]) -> Callable[[Run], None]:
    """Several at once."""

    def together(run: Run) -> None:
        for one in each:
            one(run)

    return together


def dip(run: Run) -> None:
    """Not an incident: a dip of a few seconds."""
    run.fault(FaultKind.SLOW, "0.6")


def checkpoints(run: Run) -> None:
    """Not an incident: checkpoints that take a moment."""
    run.program += ["--stall", "3"]


INCIDENTS = (
    *(thermal,) * 4,
    *(power,) * 4,
    *(slow,) * 5,
    *map(xid, (79, 48, 94, 119, 74, 31)),
    *(ecc,) * 3,
    *(nvlink,) * 3,
    *(idle,) * 3,
    *(imbalance,) * 3,
    *(launch_bound,) * 2,
    *(hang,) * 3,
    *(failure,) * 3,
    *(checkpoint,) * 3,
    both(slow, checkpoint),
    both(thermal, failure),
    both(nvlink, checkpoint),
    both(power, failure),
)
BENIGN = (lambda _: None, dip, checkpoints)
