"""The saturation model as pure functions over sums per GPU; it knows nothing of files or databases.

For each GPU and second t, with attainable ceilings (see ceilings.toml):

    s_c(t) = max over pipes (pipe active / ceiling) x clock / highest clock
    s_m(t) = DRAM active / ceiling
    S(t)   = max(s_c, s_m), within 0..1
    b(t)   = max(compute engine active, S(t)), the share of the second in which the GPU had work

The score of a job is the mean of S over its allocated GPU-seconds that were observed; missing seconds lower the
coverage. docs/reference/score.md derives the factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from piolet.score.period import Period

IDLE_RATIO = 0.05
"""A GPU that never reaches this in any second did no work: it counts as unused and earns nothing."""


class Bottleneck(StrEnum):
    """What holds a GPU back most, in the order of decision; UNKNOWN where nothing was measured."""

    IDLE = "idle"
    TENSOR_BOUND = "tensor-bound"
    TENSOR_ACTIVE = "tensor-active"
    FP64_BOUND = "FP64-bound"
    HOST_IO = "host I/O"
    MEMORY_BOUND = "memory-bound"
    COMPUTE_BOUND = "compute-bound, no tensor cores"
    NETWORK_BOUND = "network-bound"
    LAUNCH_BOUND = "launch- or sync-bound"
    INPUT_BOUND = "input-bound"
    LOW_ACTIVITY = "low activity"
    UNKNOWN = "unknown"


class Confidence(StrEnum):
    """How sure a label is: LOW for a hypothesis or thin data, MEDIUM near a threshold."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Label:
    """A bottleneck, what it means in a sentence, the numbers that decided it, and the next thing to try."""

    bottleneck: Bottleneck
    confidence: Confidence
    meaning: str
    evidence: str
    advice: str


NOT_MEASURED = Label(
    Bottleneck.UNKNOWN,
    Confidence.LOW,
    "What the GPUs did is not known.",
    "no GPU activity counters were recorded",
    "record with GPM (Hopper and newer) or DCGM, which see SM, tensor and memory activity",
)


@dataclass(frozen=True, slots=True)
class GpuTotals:
    """Sums of one GPU over its observed seconds. `peak_busy` is the highest b(t), 0..1."""

    observed_s: float
    saturated_s: float
    busy_s: float
    peak_busy: float

    @property
    def used(self) -> bool:
        """Whether the GPU did anything at all (see IDLE_RATIO)."""
        return self.observed_s > 0 and self.peak_busy >= IDLE_RATIO

    @property
    def score(self) -> float | None:
        """Mean saturation over the observed seconds, 0 for an unused GPU, None if nothing was observed."""
        if self.observed_s <= 0:
            return None
        return min(self.saturated_s / self.observed_s, 1.0) if self.used else 0.0


@dataclass(frozen=True, slots=True)
class Factors:
    """Four ratios 0..1 whose product is the score.

    used       GPU-seconds of GPUs that did any work, of all observed GPU-seconds
    busy       share of time in which the leading GPU (the one with the highest mean saturation) had work
    balance    mean saturation of the used GPUs, of that of the leading GPU
    intensity  saturation of the leading GPU while it had work
    """

    used: float
    busy: float
    balance: float
    intensity: float

    @property
    def product(self) -> float:
        """The score."""
        return self.used * self.busy * self.balance * self.intensity


@dataclass(frozen=True, slots=True)
class GpuScore:
    """One allocated GPU. Ratios are means over observed seconds, 0..1; None was not measured.

    `resets` counts how often its energy counter began again, which a reset or a new driver does.
    """

    node: str
    index: int
    uuid: str
    model: str
    coverage_ratio: float
    score: float | None = None
    compute: float | None = None
    memory: float | None = None
    network: float | None = None
    busy: float | None = None
    sm_active: float | None = None
    used: bool = False
    power_w: float | None = None
    energy_j: float | None = None
    resets: int = 0
    memory_used_bytes: int | None = None
    temperature_c: float | None = None
    throttled_s: float = 0.0
    label: Label | None = None
    totals: GpuTotals | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the job, from and to in seconds since the program's start; `score` is its mean saturation.

    `told` phases are the program's own, the others were found. `evidence` says what a phase without work was taken for.
    """

    name: str
    from_s: float
    to_s: float
    told: bool = False
    score: float | None = None
    label: Label = NOT_MEASURED
    evidence: str = ""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.to_s - self.from_s


@dataclass(frozen=True, slots=True)
class JobScore:
    """The score of a job and what explains it.

    `score` is the mean saturation over observed allocated GPU-seconds, None if nothing was observed; `steady` is the
    same without the first `startup_s` seconds. `compute`, `memory` and `network` are means over the same GPU-seconds.
    `ofu` is the mean of tensor active x clock / highest clock, within a few points of the MFU of tensor-core programs.
    `wall_s` is the length of the program, `activity` the means that decided the label, `period` how often activity
    repeats; `notes` say what the numbers cannot know.
    """

    job_id: str
    wall_s: float | None
    running: bool
    gpus: tuple[GpuScore, ...]
    coverage_ratio: float | None
    label: Label
    score: float | None = None
    factors: Factors | None = None
    steady: float | None = None
    startup_s: float = 0.0
    compute: float | None = None
    memory: float | None = None
    network: float | None = None
    ofu: float | None = None
    energy_j: float | None = None
    spread: float | None = None
    laggards: tuple[str, ...] = ()
    activity: Mapping[str, float | None] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()
    period: Period | None = None
    ceilings: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)


def factorise(totals: Sequence[GpuTotals]) -> Factors | None:
    """Return the factors of the job's score, None if no GPU was observed.

    With mean saturation x_g = saturated/observed of each used GPU and the leading GPU L = argmax x_g:
    S = U * mean(x) = U * (mean(x) / x_L) * x_L, the mean being over used GPU-seconds,
    and x_L = (busy_L / observed_L) * (saturated_L / busy_L).
    Each ratio lies in 0..1 because S(t) <= b(t) <= 1, and a mean is never above the maximum.
    """
    observed_s = sum(gpu.observed_s for gpu in totals)
    if observed_s <= 0:
        return None
    used = [gpu for gpu in totals if gpu.used]
    used_s = sum(gpu.observed_s for gpu in used)
    leader = max(used, key=lambda gpu: (gpu.score or 0.0, gpu.busy_s / gpu.observed_s), default=None)
    if leader is None or leader.saturated_s <= 0:
        busy = _share(leader.busy_s, leader.observed_s) if leader else 0.0
        return Factors(_share(used_s, observed_s), busy, 1.0 if leader else 0.0, 0.0)
    mean = sum(gpu.saturated_s for gpu in used) / used_s
    return Factors(
        used=_share(used_s, observed_s),
        busy=_share(leader.busy_s, leader.observed_s),
        balance=_share(mean, leader.saturated_s / leader.observed_s),
        intensity=_share(leader.saturated_s, leader.busy_s),
    )


def mean_saturation(totals: Sequence[GpuTotals]) -> float | None:
    """Return the job's score straight from its definition, None if no GPU was observed."""
    observed_s = sum(gpu.observed_s for gpu in totals)
    if observed_s <= 0:
        return None
    return min(sum(gpu.saturated_s for gpu in totals if gpu.used) / observed_s, 1.0)


def _share(part: float, whole: float) -> float:
    return min(part / whole, 1.0) if whole > 0 else 0.0
