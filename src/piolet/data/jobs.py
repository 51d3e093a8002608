"""What a job's use of storage means: findings from its figures. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from piolet.core.nouns import Finding, Severity
from piolet.core.text import count, size
from piolet.logbook.storage import JobStorage

MANY_READS = 100_000
"""Fewer reads cost no time that anybody would see: some minutes even on disks, over all nodes."""
SMALL_SHARE = 0.5
LOCAL = "disk"
"""The kernel reads a disk of the node in pieces of 128 KiB, whatever the program asked for."""
STALL_SHARE = 0.05
CHECKPOINT_SHARE = 0.05
"""Daly's interval at the usual costs and failure rates loses 3 to 9 %, half of it in writing."""
METADATA_PER_S = 1000.0
"""A metadata server of a parallel file system answers some ten thousand operations a second, for everybody."""


def findings(found: JobStorage) -> tuple[Finding, ...]:
    """Return what is to be known of a job's storage, the worst first."""
    every = [*_stall(found), *_small(found), *_metadata(found), *_checkpoints(found)]
    return tuple(sorted(every, key=lambda each: -list(Severity).index(each.severity)))


def _stall(found: JobStorage) -> Iterator[Finding]:
    share = found.stall_share
    if share is not None and share >= STALL_SHARE:
        what = f"{share:.0%} of the time its nodes waited for storage while GPUs idled ({found.stall_s:.0f} s)"
        evidence = {"stall_s": found.stall_s, "share": share}
        advice = (
            "stage what is read again and again: piolet data stage; see how the file system reads: piolet data probe"
        )
        yield Finding("job", Severity.WARNING, what, evidence, advice)


def _small(found: JobStorage) -> Iterator[Finding]:
    for mount in found.mounts:
        share = mount.small_read_share or 0.0
        if mount.kind == LOCAL:
            continue
        if mount.read_ops >= MANY_READS and share >= SMALL_SHARE:
            mean = size(mount.mean_read_bytes or 0)
            what = f"{share:.0%} of {count(mount.read_ops)} reads were small ({mean} on average)"
            advice = "pack the files into one image and mount it: piolet data pack"
            yield Finding(mount.fs, Severity.WARNING, what, {"share": share, "reads": mount.read_ops}, advice)


def _metadata(found: JobStorage) -> Iterator[Finding]:
    for mount in found.mounts:
        rate = mount.metadata_ops / found.duration_s
        if rate >= METADATA_PER_S:
            what = f"{count(rate)} operations a second that move no data (opens, stats), over the whole job"
            advice = "pack small files, and keep Python environments in an image: piolet data check says which"
            yield Finding(mount.fs, Severity.WARNING, what, {"per_s": rate}, advice)


def _checkpoints(found: JobStorage) -> Iterator[Finding]:
    told = found.checkpoints
    if told and told.share >= CHECKPOINT_SHARE:
        what = f"{told.share:.0%} of the time went into {count(told.count)} checkpoints of {told.median_s:.0f} s"
        advice = "see how often is enough: piolet data ckpt plan --from-job JOB; write them asynchronously"
        yield Finding("job", Severity.WARNING, what, {"share": told.share, "count": told.count}, advice)
