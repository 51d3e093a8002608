"""What the logbook shows while a program runs: Xids, hangs, and no sign of life."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from piolet.core.errors import ToolMissing
from piolet.core.run import PIPE, SystemRunner, end
from piolet.launch import stacks
from piolet.launch.watching import LOOK_S, Hang, Watch, xid_before
from piolet.logbook import layout
from piolet.logbook.writer import SegmentWriter

WORKS = {"gpu_util_ratio": 1.0, "tensor_active_ratio": 0.3, "dram_active_ratio": 0.2}
WAITS = {"gpu_util_ratio": 1.0, "tensor_active_ratio": 0.0, "dram_active_ratio": 0.0}
IDLE = {"gpu_util_ratio": 0.0, "tensor_active_ratio": 0.0, "dram_active_ratio": 0.0}
SENDS = WAITS | {"nvlink_tx_bytes_per_s": 1e9}
SILENT = {"gpu_util_ratio": 1.0}


def folded(*phases: tuple[float, dict[str, float], dict[str, float]]) -> Hang:
    """See two GPUs, node1:0 and node2:0, through phases of (seconds, what the one does, what the other does)."""
    hang, now_s = Hang(), 0
    names = ("gpu_util_ratio", "tensor_active_ratio", "dram_active_ratio")
    names += ("nvlink_tx_bytes_per_s", "nvlink_rx_bytes_per_s")
    for seconds, *both in phases:
        for _ in range(round(seconds)):
            now_s += 1
            for node, does in zip(("node1", "node2"), both, strict=True):
                hang.see([(now_s * 10**9, node, 0, *(does.get(name) for name in names))])
    return hang


@pytest.mark.parametrize(
    ("phases", "quiet_s"),
    [
        ([(10, WORKS, WORKS), (31, WAITS, WAITS)], 30),
        ([(10, WORKS, WORKS), (31, WAITS, WORKS)], 0),
        ([(10, WORKS, WORKS), (31, SENDS, WAITS)], 0),
        ([(31, WAITS, WAITS)], 0),  # nothing was ever done: it may still be loading
        ([(10, WORKS, WORKS), (31, IDLE, IDLE)], 0),  # no kernel waits: data, a checkpoint, the end
        ([(10, WORKS, WORKS), (31, SILENT, SILENT)], 0),
        ([(10, WORKS, WORKS), (31, WAITS, WAITS), (1, WORKS, WAITS)], 0),
    ],
)
def test_a_hang_is_waiting_everywhere_after_work(phases, quiet_s):
    assert folded(*phases).quiet_s == quiet_s


def test_the_gpu_that_the_others_wait_for_is_named():
    hang = Hang()
    for second in range(40):
        for gpu in range(4):
            does = (1.0, 0.3, 0.2) if second < 9 else (0.0 if gpu == 2 else 1.0, 0.0, 0.0)
            hang.see([(second * 10**9, "node1" if gpu < 2 else "node2", gpu % 2, *does, None, None)])

    assert hang.quiet_s == 30
    assert hang.sign().what == "4 GPUs have done no work for 30 s, all wait but node2:0"
    assert hang.sign().node == "node2"


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Followed:
    """A logbook that is written while it is watched."""

    def __init__(self, directory, *signs: str, heartbeat_s: float | None = None) -> None:
        self.logbook = layout.create(directory, "here", "1")
        self.writers = {node: SegmentWriter(self.logbook, node) for node in ("node1", "node2")}
        self.clock, self.suspicions = Clock(), 0
        self.watch = Watch(self.logbook, signs, 20.0, 10.0, self._suspect, heartbeat_s, self.clock)

    def _suspect(self) -> None:
        self.suspicions += 1

    def after(self, seconds: float, family: str = "", **row: object) -> str:
        """Let time pass, write a row of each node, and look; gives the sign."""
        self.clock.now_s += seconds
        for node, writer in self.writers.items():
            if family:
                writer.append(family, {"time_ns": round(self.clock.now_s * 1e9), "node": node, **row})
            writer.flush()
        self.clock.now_s += LOOK_S
        sign = self.watch.reason()
        return sign.name if sign else ""


def test_a_fatal_xid_ends_the_program_at_once_and_another_does_not(tmp_path):
    followed = Followed(tmp_path, "xid")

    assert followed.after(1) == ""
    assert followed.after(1, "events", kind="xid", code="31", gpu=1) == ""
    assert followed.after(1, "events", kind="xid", code="79", gpu=1) == "xid"


def test_an_xid_that_nobody_asked_for_is_no_sign(tmp_path):
    assert Followed(tmp_path, "hang").after(1, "events", kind="xid", code="79", gpu=1) == ""


def test_a_hang_is_looked_at_once_and_ends_the_program_after_its_grace(tmp_path):
    followed = Followed(tmp_path, "hang")

    assert followed.after(1, "gpu", gpu=0, **WORKS) == ""
    assert [followed.after(5, "gpu", gpu=0, **WAITS) for _ in range(3)] == ["", "", ""]
    assert followed.suspicions == 1
    assert followed.after(5, "gpu", gpu=0, **WAITS) == "hang"
    assert followed.suspicions == 1


def test_work_that_goes_on_ends_the_suspicion(tmp_path):
    followed = Followed(tmp_path, "hang")
    for does in (WORKS, *[WAITS] * 3, WORKS, *[WAITS] * 3):
        assert followed.after(5, "gpu", gpu=0, **does) == ""

    assert followed.suspicions == 2


def test_a_heartbeat_is_a_step_or_a_phase(tmp_path):
    followed = Followed(tmp_path, heartbeat_s=100.0)

    assert followed.after(90, "user", name="step", value=1.0) == ""
    assert followed.after(90, "events", kind="phase", code="checkpoint") == ""
    assert followed.after(90, "gpu", gpu=0, **WORKS) == ""
    assert followed.after(10) == "heartbeat"


def test_rows_that_were_merged_meanwhile_are_not_lost(tmp_path):
    followed = Followed(tmp_path, "xid")
    followed.after(1, "events", kind="phase", code="training")
    for writer in followed.writers.values():
        writer.append("events", {"time_ns": 5, "node": "node1", "kind": "xid", "code": "79"})
        writer.close()

    assert followed.after(1) == "xid"


def test_a_torn_segment_ends_nothing_and_hides_nothing(tmp_path):
    followed = Followed(tmp_path, "xid")
    (followed.logbook.events / "node3-000001.parquet").write_bytes(b"PAR1 torn PAR1")

    assert followed.after(1) == ""
    assert followed.after(1, "events", kind="xid", code="79") == "xid"


@pytest.mark.parametrize(("age_s", "found"), [(30, True), (700, False)])
def test_an_xid_explains_what_follows_soon(tmp_path, age_s, found):
    followed, now_ns = Followed(tmp_path), time.time_ns()
    followed.writers["node1"].append(
        "events", {"time_ns": now_ns - age_s * 10**9, "node": "node1", "kind": "xid", "code": "79"}
    )
    followed.writers["node1"].flush()

    assert bool(xid_before(followed.logbook, now_ns)) is found


@pytest.fixture
def rank() -> Iterator[object]:
    """A Python program of job 7 that waits."""
    variables = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "3"}
    code = "import time\nprint('here', flush=True)\ndef waits_here():\n    time.sleep(600)\nwaits_here()"
    process = SystemRunner(variables).start(["python3", "-c", code], stdout=PIPE)
    process.stdout.readline()
    yield process
    process.stdout.close()
    end(process, 5)


def test_the_stacks_of_a_job_on_this_node(rank):
    [task] = stacks.tasks(stacks.PROC, "7")

    assert (task.pid, task.rank) == (rank.pid, "3")
    assert "waits_here" in stacks.stack(task)
    assert list(stacks.tasks(stacks.PROC, "8")) == []


@pytest.mark.usefixtures("rank")
def test_without_py_spy_the_kernels_word_stands():
    class Without:
        def run(self, argv, **_):
            raise ToolMissing(argv[0])

    [task] = stacks.tasks(stacks.PROC, "7")
    said = stacks.stack(task, Without())
    assert said.startswith("state S, waits in ")
    assert "py-spy" in said
