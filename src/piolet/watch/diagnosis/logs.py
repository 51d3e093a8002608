"""What programs and libraries write when they fail: a catalogue of patterns, and the rank that failed first.

The catalogue says of each pattern whether it initiates or follows: a NCCL time-out is what the other ranks say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from piolet.core.errors import storage_errors

_MOST_MATCHES = 2000
_LONGEST_LINE = 4096
_LARGEST_BYTES = 64 << 20
_RANK = re.compile(r"^\s*(?P<label>\d+): |\[rank[ =]?(?P<torch>\d+)\]|\brank[ =](?P<word>\d+)\b", re.IGNORECASE)
_TIME = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)[T ](?P<time>\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,9}))?")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A line to look for. `follows` marks what is said of another rank's failure; `rule` what it is evidence for."""

    name: str
    expression: re.Pattern[str]
    meaning: str
    fatal: bool = True
    follows: bool = False


@dataclass(frozen=True, slots=True)
class LogMatch:
    """A line that matched: where, the rank and the time (UTC ns) if it tells them."""

    pattern: Pattern
    path: Path
    line: int
    text: str
    rank: int | None
    time_ns: int | None


def _pattern(name: str, expression: str, meaning: str, *, fatal: bool = True, follows: bool = False) -> Pattern:
    return Pattern(name, re.compile(expression), meaning, fatal, follows)


CATALOGUE = (
    _pattern("cuda-oom", r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError", "the GPU's memory was full"),
    _pattern(
        "host-oom", r"[Oo]ut of memory: Killed process|oom[-_]kill|Detected \d+ oom", "the host's memory was full"
    ),
    _pattern("xid", r"NVRM: Xid", "the GPU driver reported an error"),
    _pattern("ecc", r"uncorrectable ECC error", "a GPU's memory is faulty"),
    _pattern("cuda-illegal", r"illegal memory access|device-side assert", "a kernel did something that is not allowed"),
    _pattern("cuda-error", r"CUDA error:|CUDNN_STATUS_|CUBLAS_STATUS_", "a call into CUDA failed"),
    _pattern("nccl-timeout", r"Watchdog caught collective operation timeout", "a collective did not end", follows=True),
    _pattern(
        "nccl-peer",
        r"remote process exited|Connection (?:reset|closed) by (?:remote )?peer",
        "a peer is gone",
        follows=True,
    ),
    _pattern("nccl-system", r"ncclSystemError|ncclInternalError|unhandled system error", "NCCL failed", follows=True),
    _pattern("nccl-tcp", r"NCCL INFO (?:NET/Socket|Using network Socket)", "NCCL uses TCP", fatal=False),
    _pattern(
        "flight-recorder", r"Flight ?Recorder|FlightRecorder|nccl_trace_rank_", "PyTorch wrote its traces", follows=True
    ),
    _pattern(
        "lustre", r"LustreError|Lustre: .*(?:evicted|Connection to .* was lost)", "Lustre lost a server", fatal=False
    ),
    _pattern("nfs", r"nfs: server .* not responding", "an NFS server does not answer", fatal=False),
    _pattern("no-space", r"No space left on device|Disk quota exceeded", "a file system is full"),
    _pattern("import", r"ModuleNotFoundError|ImportError", "a Python module is missing"),
    _pattern("segfault", r"Segmentation fault|SIGSEGV", "a process crashed"),
    _pattern("loss-nan", r"loss[ =:]+nan\b", "the loss is not a number", fatal=False),
    _pattern(
        "traceback", r"^(?:\s*\d+: |\[rank\d+\]:\s*)?Traceback \(most recent call last\)", "Python raised an exception"
    ),
    _pattern("terminated", r"SIGTERM|STEP \S+ CANCELLED", "the step was ended", follows=True),
)


def scan(lines: Iterable[str], path: Path) -> Iterator[LogMatch]:
    """Yield the lines that match the catalogue, each with the first pattern that fits."""
    for number, line in enumerate(lines, start=1):
        text = line[:_LONGEST_LINE].rstrip()
        pattern = next((each for each in CATALOGUE if each.expression.search(text)), None)
        if pattern:
            yield LogMatch(pattern, path, number, text, rank_of(text), time_of(text))


def read(paths: Iterable[Path]) -> tuple[LogMatch, ...]:
    """Scan files, of each the last 64 MiB, and return at most 2 000 matches in their order.

    Raises:
        StorageError: a file cannot be read.
    """
    found: list[LogMatch] = []
    for path in paths:
        with storage_errors(path, "read the log"), path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LARGEST_BYTES))
            found += scan(file.read().decode("utf-8", "replace").splitlines(), path)
    return tuple(found[:_MOST_MATCHES])


def first_failure(matches: Iterable[LogMatch]) -> LogMatch | None:
    """Return the failure that came first: one that follows from another's counts only if there is no other."""
    fatal = [match for match in matches if match.pattern.fatal]
    initiating = [match for match in fatal if not match.pattern.follows] or fatal
    timed = [match for match in initiating if match.time_ns is not None]
    return (
        min(timed, key=lambda match: match.time_ns or 0)
        if len(timed) == len(initiating) and timed
        else next(iter(initiating), None)
    )


def rank_of(text: str) -> int | None:
    """Return the rank that a line names: srun's label, torch's ``[rank3]``, or ``rank 3``."""
    match = _RANK.search(text)
    return int(next(group for group in match.groups() if group)) if match else None


def time_of(text: str) -> int | None:
    """Return the time in a line, read as UTC, in nanoseconds."""
    match = _TIME.search(text)
    if not match:
        return None
    try:
        moment = datetime.fromisoformat(f"{match['day']}T{match['time']}").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) * 1_000_000_000 + int((match["part"] or "0").ljust(9, "0"))
