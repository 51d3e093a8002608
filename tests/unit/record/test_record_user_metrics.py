"""Programs that report to the recorder: the client, the line protocol, and the collector behind a real socket."""

from __future__ import annotations

import math
import os
import re
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import piolet
from piolet import metrics
from piolet.core.errors import PioletError, StorageError
from piolet.logbook.layout import Logbook
from piolet.record import metrics_name
from piolet.record.collector import Context
from piolet.record.collectors import user
from piolet.record.collectors.user import Ledger, Report, UserCollector, parse
from piolet.record.spec import AgentSpec

ROOT = Path(__file__).resolve().parents[3]
REPORT_PY = ROOT / "examples" / "01-first-climb" / "report.py"


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserCollector]:
    """A collector of a node n1, and this process as a program of rank 3 there."""
    spec = AgentSpec(tmp_path, "n1", interval_s=1, flush_s=1, kernel_log=Path("/dev/kmsg"))
    monkeypatch.setenv(metrics.VARIABLE, metrics_name(tmp_path))
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(metrics._Told, "phase", "")
    monkeypatch.setattr(metrics._Told, "lost", 0)
    made = UserCollector(Context({}, StorageError("none"), metrics=spec.metrics))
    yield made
    made.close()


def _samples(entries: list[Any]) -> list[tuple[Any, ...]]:
    rows = [row for family, row in entries if family == "user"]
    return [(row["rank"], row["step"], row["name"], row["value"]) for row in rows]


def _events(entries: list[Any]) -> list[tuple[str, str]]:
    return [(row["kind"], row["code"]) for family, row in entries if family == "events"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"rank=0 step=12 loss=0.53", Report(0, 12, values={"loss": 0.53})),
        (b"rank=0 phase=training", Report(0, phase="training")),
        ("phase=démarrage lost=3".encode(), Report(phase="démarrage", lost=3)),
        (b"eval/loss=1e-5 a.b-c=inf", Report(values={"eval/loss": 1e-5, "a.b-c": math.inf})),
    ],
)
def test_a_line_is_a_report(line: bytes, expected: Report) -> None:
    assert parse(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"   ",
        b"loss",
        b"loss=",
        b"=1",
        b"loss=high",
        b"loss=0.5 and more",
        b"rank=-1 loss=1",
        b"rank=one loss=1",
        b"step=9223372036854775808 loss=1",
        b"step=1.5 loss=1",
        b"1loss=1",
        b"loss=1;drop=2",
        b"\xff\xfe=1",
        b"a" * 65 + b"=1",
        b"loss=" + b"1" * 65,
        b"a=1 " * 600,
    ],
)
def test_what_is_not_a_report_is_refused_as_a_whole(line: bytes) -> None:
    assert parse(line) is None


def test_numbers_and_phases_arrive_with_rank_step_and_time(collector: UserCollector) -> None:
    before_ns = time.time_ns()
    piolet.phase("start up")
    piolet.log(step=7, loss=0.25, tokens=8192)
    entries = collector.finish(time.time_ns())
    assert _samples(entries) == [(3, 7, "loss", 0.25), (3, 7, "tokens", 8192.0)]
    assert all(before_ns <= row["time_ns"] <= time.time_ns() for _, row in entries)
    assert _events(entries) == []  # a phase is rank 0's to say


def test_rank_0_says_the_phase_and_every_report_repeats_it(
    collector: UserCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("SLURMD_NODENAME", "elsewhere")
    piolet.phase("training")  # which nobody hears
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    for step in range(3):
        piolet.log(step=step, loss=step)
    piolet.phase("check point")
    entries = collector.finish(time.time_ns())
    assert _events(entries) == [("phase", "training"), ("phase", "check-point")]
    assert len(_samples(entries)) == 3


def test_the_lines_of_plain_python_in_the_examples_speak_the_protocol(
    collector: UserCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    report: Callable[..., None] = runpy.run_path(str(REPORT_PY))["report"]
    report(phase="training", step=1, loss=2.5)
    monkeypatch.delenv(metrics.VARIABLE)
    report(step=2, loss=1.5)
    assert _samples(collector.finish(time.time_ns())) == [(3, 1, "loss", 2.5)]


def test_a_value_that_is_no_number_is_left_out_and_nan_is_missing(collector: UserCollector) -> None:
    class Angry:
        def __float__(self) -> float:
            raise RuntimeError("no")

        __str__ = __repr__ = __float__  # type: ignore[assignment]

    piolet.log(loss=math.nan, text="x", nothing=None, angry=Angry(), rank=5, odd=2)
    piolet.log(step=Angry(), loss=1)  # type: ignore[arg-type] # what users do
    piolet.phase(Angry())  # type: ignore[arg-type] # what users do
    piolet.log(**{"eval loss=1 x": 1.0, "\ud800": 2.0})
    piolet.log(**{"eval loss=1 x": 1.0})
    assert _samples(collector.finish(time.time_ns())) == [
        (3, None, "loss", None),
        (3, None, "odd", 2.0),
        (3, None, "eval-loss-1-x", 1.0),
    ]


def test_a_sender_never_waits_and_each_report_arrives_or_is_told_lost(collector: UserCollector) -> None:
    began = time.monotonic()
    for step in range(5000):
        piolet.log(step=step, loss=1.0)
    assert time.monotonic() - began < 1.5
    assert metrics._Told.lost > 0
    entries = collector.collect(time.time_ns())
    assert len(_samples(entries)) == user.MAX_WAITING
    time.sleep(0.1)  # the thread takes what the kernel has kept
    piolet.log(step=5000, loss=1.0)
    assert metrics._Told.lost == 0
    entries += collector.finish(time.time_ns())
    message = [row["message"] for family, row in entries if family == "events"][-1]
    found = re.search(r"(\d+) refused, (\d+) above 500 a second, (\d+) not delivered", message)
    assert found
    assert len(_samples(entries)) + sum(map(int, found.groups())) == 5001


@pytest.mark.parametrize("name", ["", "nobody/{node}", "x" * 300, "\udc80"])
def test_without_a_recorder_nothing_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(metrics.VARIABLE, name)
    monkeypatch.setattr(metrics._Told, "phase", "")
    piolet.log(step=1, loss=0.5)
    piolet.phase("training")
    assert metrics._Told.lost == 0


def test_descriptors_that_are_sent_along_are_not_taken(collector: UserCollector, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, (tmp_path / "sent").open("w") as file:
        sender.connect(metrics.address(os.environ[metrics.VARIABLE]))
        for _ in range(5):
            socket.send_fds(sender, [b"loss=1"], [file.fileno()] * 3)
    assert len(_samples(collector.finish(time.time_ns()))) == 5
    targets = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert str(tmp_path / "sent") not in targets


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_other_users_are_not_heard(collector: UserCollector) -> None:
    program = "import os; os.setuid(65534); import piolet; piolet.log(loss=1)"
    code = f"import sys; sys.path[:0] = {sys.path!r}; import piolet; {program}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    piolet.log(loss=2)
    assert [value for *_, value in _samples(collector.finish(time.time_ns()))] == [2.0]


def test_a_name_that_is_taken_is_an_error_that_says_so(collector: UserCollector, tmp_path: Path) -> None:
    spec = AgentSpec(tmp_path, "n1", interval_s=1, flush_s=1, kernel_log=Path("/dev/kmsg"))
    with pytest.raises(PioletError, match="Address already in use"):
        UserCollector(Context({}, StorageError("none"), metrics=spec.metrics))
    collector.collect(1)


def test_rows_are_thinned_and_trouble_is_told_when_it_has_doubled() -> None:
    ledger = Ledger()
    ledger.refill(0.0)
    reports = [Report(0, step, values={"loss": 1.0}) for step in range(user.MAX_ROWS_AT_ONCE + 100)]
    assert sum(len(list(ledger.rows(1, report))) for report in reports) == user.MAX_ROWS_AT_ONCE
    assert len(list(ledger.troubles(1))) == 1
    assert list(ledger.troubles(2)) == []
    ledger.refill(0.1)
    assert sum(len(list(ledger.rows(1, report))) for report in reports[:60]) == 50
    assert list(ledger.troubles(3)) == []
    ((_, row),) = ledger.troubles(4, final=True)
    assert "0 refused, 110 above 500 a second, 0 not delivered" in row["message"]


def test_what_the_program_tells_itself_goes_before_what_it_prints() -> None:
    ledger = Ledger()
    told = [
        b"source=output step=1 loss=3 step_time_s=0.5",
        b"rank=0 step=1 loss=2",
        b"source=output step=2 loss=1 mfu=1",
    ]
    found = [entry for line in told for entry in ledger.rows(1, parse(line))]
    assert [(name, value) for *_, name, value in _samples(found)] == [
        ("loss", 3.0),
        ("step_time_s", 0.5),
        ("loss", 2.0),
        ("mfu", 1.0),
    ]


def test_a_program_cannot_invent_names_without_end() -> None:
    ledger = Ledger()
    found = [list(ledger.rows(1, Report(values={f"name{number}": 1.0}))) for number in range(1000)]
    assert sum(map(len, found)) == user.MAX_NAMES
    assert ledger.refused == 1000 - user.MAX_NAMES


def test_many_threads_report_at_once(collector: UserCollector) -> None:
    threads = [threading.Thread(target=piolet.log, kwargs={"step": step, "loss": step}) for step in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = _samples(collector.finish(time.time_ns()))
    assert len(found) + metrics._Told.lost == 8
    assert all(step == value for _, step, _, value in found)


def test_importing_piolet_loads_nothing_but_the_standard_library() -> None:
    code = "import sys; import piolet; print(*sorted(name for name in sys.modules if name.startswith('piolet')))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["piolet"]


def test_a_recorded_program_is_heard_to_its_last_word(
    node: Any, rows: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    program = (
        "import piolet, time\n"
        "import os\n"
        "while '@' + os.environ['PIOLET_METRICS'] not in open('/proc/net/unix').read():\n"
        "    time.sleep(0.02)\n"
        "piolet.phase('training')\n"
        "for step in range(5):\n"
        "    piolet.log(step=step, loss=5.0 - step)\n"
        "    time.sleep(0.05)\n"
    )
    process = node.record(sys.executable, "-c", program, env={"RANK": "0"})
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr
    (logbook,) = node.logbooks()
    wait_until(lambda: list((logbook.path / "telemetry" / "user").glob("*.parquet")))
    query = "SELECT rank, step, name, value FROM user ORDER BY time_ns"
    found = wait_until(lambda: len(told := rows(logbook, query)) == 5 and told)
    assert found == [(0, step, "loss", 5.0 - step) for step in range(5)]
    assert rows(Logbook(logbook.path), "SELECT code FROM events WHERE kind = 'phase'") == [("training",)]
