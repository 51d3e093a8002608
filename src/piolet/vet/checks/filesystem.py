"""A directory is written, read back or filled with files as fast as it must be, and gives back what it was given."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, MinLen

from piolet.core.nouns import Status
from piolet.vet.check import Check, Context, Judgement

_BLOCK_BYTES = 1 << 20
_UNITS = {"write": "MB/s", "read": "MB/s", "metadata": "files/s"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """`path`: a directory that the job may write; what is written there is gone afterwards.

    `measure`: write (to the servers: synced), read (what was written, past this node's cache where the file system
    lets go of it), or metadata (create, stat, remove). `least`: MB/s (10^6 bytes) or files/s; left out, compare the
    nodes by `criteria`. `mib` and `files`: how much.
    """

    path: Annotated[str, MinLen(1)]
    measure: Literal["write", "read", "metadata"] = "write"
    least: Annotated[float, Gt(0)] | None = None
    mib: Annotated[int, Ge(1)] = 64
    files: Annotated[int, Ge(1)] = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """The rate, and how many blocks came back other than they were written; `trouble` is what the file system said."""

    rate: float = 0.0
    wrong_blocks: int = 0
    trouble: str = ""


def observe(parameters: Parameters, context: Context) -> Seen:  # noqa: ARG001 - the interface of checks
    """Measure; a file system that refuses is an observation, one that hangs makes the check unknown."""
    try:
        return _metadata(parameters) if parameters.measure == "metadata" else _data(parameters)
    except OSError as error:
        return Seen(trouble=error.strerror or str(error))


def judge(observation: Seen, parameters: Parameters) -> Judgement:
    """Fail on trouble, on wrong content, then on a low rate."""
    unit, least = _UNITS[parameters.measure], parameters.least
    if observation.trouble or observation.wrong_blocks:
        wrong = f"{observation.wrong_blocks} MiB came back other than they were written"
        remedy = "look at the free space, the quota and the mount of this path on the node; tell the operators"
        return Judgement(Status.FAIL, f"{parameters.path}: {observation.trouble or wrong}", remedy=remedy)
    rate = round(observation.rate, 1)
    reason = f"{parameters.path}: {parameters.measure} at {rate:.4g} {unit}"
    if least is None or rate >= least:
        return Judgement(Status.PASS, reason, rate, least, unit)
    remedy = "look at the load of its servers, and at this node's link to them"
    return Judgement(Status.FAIL, reason, rate, least, unit, remedy)


def _data(parameters: Parameters) -> Seen:
    """Write blocks to a file without a name, so that nothing stays behind whatever happens, and read them."""
    block = os.urandom(_BLOCK_BYTES)
    with tempfile.TemporaryFile(dir=parameters.path, buffering=0) as file:
        started_s = time.perf_counter()
        for _ in range(parameters.mib):
            _write(file.fileno(), block)
        os.fsync(file.fileno())
        written_s = time.perf_counter() - started_s
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started_s = time.perf_counter()
        blocks = [os.pread(file.fileno(), _BLOCK_BYTES, index * _BLOCK_BYTES) for index in range(parameters.mib)]
        read_s = time.perf_counter() - started_s
    seconds = written_s if parameters.measure == "write" else read_s
    return Seen(parameters.mib * _BLOCK_BYTES / seconds / 1e6, sum(each != block for each in blocks))


def _write(descriptor: int, block: bytes) -> None:
    while block:
        block = block[os.write(descriptor, block) :]


def _metadata(parameters: Parameters) -> Seen:
    """Create, look at and remove one file after the other, so that a kill leaves at most one, and its directory."""
    with tempfile.TemporaryDirectory(prefix=".piolet-vet-", dir=parameters.path) as directory:
        started_s = time.perf_counter()
        for index in range(parameters.files):
            path = os.path.join(directory, str(index))  # noqa: PTH118 - measured: pathlib costs more than the call
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.stat(path)  # noqa: PTH116 - same
            os.unlink(path)  # noqa: PTH108 - same
        return Seen(parameters.files / (time.perf_counter() - started_s))


CHECK = Check(
    name="filesystem",
    version=1,
    summary="a directory is written, read or filled with files fast, and gives back what it was given",
    source="the site, or the median of the job's own nodes",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    better="higher",
    quiet=True,
    typical_s=5.0,
)
