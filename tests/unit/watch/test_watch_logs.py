from __future__ import annotations

from pathlib import Path

import pytest

from piolet.core.errors import StorageError
from piolet.watch.diagnosis import logs

# Written in the form of PyTorch 2.x, NCCL 2.x, srun --label and the Linux kernel; not recorded.
OUTPUT = """\
0: NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0>
3: 2026-11-25 10:00:07,100 torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
3: Traceback (most recent call last):
[rank0]:[E1125 10:10:07.1 ProcessGroupNCCL.cpp:616] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL
1: ncclRemoteError: remote process exited or there was a network error
slurmstepd: error: *** STEP 42.0 ON node1 CANCELLED AT 2026-11-25T10:10:08 DUE TO SIGTERM ***
""".splitlines()


def scanned(lines: list[str]) -> list[logs.LogMatch]:
    return list(logs.scan(lines, Path("job.out")))


def test_lines_are_matched_with_rank_and_time() -> None:
    found = scanned(OUTPUT)
    assert [match.pattern.name for match in found] == [
        "nccl-tcp",
        "cuda-oom",
        "traceback",
        "nccl-timeout",
        "nccl-peer",
        "terminated",
    ]
    assert [match.rank for match in found] == [0, 3, 3, 0, 1, None]
    assert found[1].time_ns == 1795600807100000000


def test_the_initiating_failure_wins_over_what_follows() -> None:
    first = logs.first_failure(scanned(OUTPUT[3:] + OUTPUT[:3]))
    assert first
    assert (first.rank, first.pattern.name) == (3, "cuda-oom")


def test_a_cascade_alone_is_named_as_far_as_it_goes() -> None:
    first = logs.first_failure(scanned(OUTPUT[3:]))
    assert first
    assert first.pattern.follows
    assert logs.first_failure([]) is None


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("kernel: Out of memory: Killed process 7 (python)", "host-oom"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=3.0", "host-oom"),
        ("NVRM: Xid (PCI:0000:65:00): 79, pid=1, GPU has fallen off the bus.", "xid"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "ecc"),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", "cuda-illegal"),
        ("LustreError: 11-0: scratch-OST0001: operation ost_read failed", "lustre"),
        ("nfs: server home not responding, still trying", "nfs"),
        ("OSError: [Errno 28] No space left on device", "no-space"),
        ("ModuleNotFoundError: No module named 'apex'", "import"),
        ("Dumping FlightRecorder trace to /tmp/nccl_trace_rank_3", "flight-recorder"),
        ("step 10 | loss: nan | lr 1e-3", "loss-nan"),
    ],
)
def test_the_catalogue_knows(line: str, name: str) -> None:
    assert [match.pattern.name for match in scanned([line])] == [name]


@pytest.mark.parametrize("line", ["loss 2.31", "rank 3 ready", "No errors", "nanoseconds: 12", ""])
def test_ordinary_lines_match_nothing(line: str) -> None:
    assert scanned([line]) == []


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="read the log"):
        logs.read([tmp_path / "absent"])
