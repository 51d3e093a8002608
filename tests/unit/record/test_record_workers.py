from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from piolet.core.errors import PioletError, StorageError
from piolet.logbook import segments
from piolet.logbook.layout import Logbook
from piolet.record import sampler
from piolet.record import worker as worker_module
from piolet.record.collector import Context, Entry, NotApplicable
from piolet.record.sampler import Output
from piolet.record.spec import AgentSpec
from piolet.record.worker import Mailbox, Worker

CONTEXT = Context({}, StorageError("no log"))


class _Steady:
    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self, time_ns: int) -> Iterable[Entry]:
        return [("host", {"time_ns": time_ns})]


class _Flaky(_Steady):
    count = 0

    def collect(self, time_ns: int) -> Iterable[Entry]:
        self.count += 1
        if 2 <= self.count <= 4:
            raise PioletError("the sensor says no", where="here")
        return super().collect(time_ns)


class _Hung(_Steady):
    gate = threading.Event()

    def collect(self, time_ns: int) -> Iterable[Entry]:
        self.gate.wait(10)
        return super().collect(time_ns)


class _Broken:
    def __init__(self, context: Context) -> None:
        raise ValueError(f"unexpected {len(context.environ)}")

    def collect(self, _time_ns: int) -> Iterable[Entry]:
        return []


class _Elsewhere(_Steady):
    def __init__(self, context: Context) -> None:
        raise NotApplicable("no such thing", where=str(context.proc))


class _Run:
    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self.stop = threading.Event()
        self.entries: list[Entry] = []

    def start(self, name: str, factory: Callable[[Context], Any]) -> Worker:
        made = Worker(name, factory, CONTEXT, interval_ns=20_000_000, mailbox=self.mailbox, stop=self.stop)
        made.start()
        return made

    def take(self) -> list[Entry]:
        self.entries += self.mailbox.take()[0]
        return self.entries

    def events(self) -> list[tuple[str, str]]:
        return [(row["code"], row["message"]) for family, row in self.take() if family == "events"]

    def samples(self) -> list[int]:
        return [row["time_ns"] for family, row in self.take() if family == "host"]


@pytest.fixture
def run() -> Any:
    made = _Run()
    yield made
    made.stop.set()
    _Hung.gate.set()


def test_samples_come_at_aligned_times_without_drift(run: _Run, wait_until: Callable[..., Any]) -> None:
    run.start("steady", _Steady)
    wait_until(lambda: len(run.samples()) >= 10)
    times = run.samples()
    assert times == sorted(set(times))
    assert all(time_ns % 20_000_000 == 0 for time_ns in times)
    assert run.events() == []


def test_a_failing_collector_is_reported_once_and_when_it_answers_again(
    run: _Run, wait_until: Callable[..., Any]
) -> None:
    run.start("flaky", _Flaky)
    wait_until(lambda: len(run.samples()) >= 3)
    assert run.events() == [
        ("unavailable", "flaky: the sensor says no;   where: here"),
        ("recovered", "flaky: answers again"),
    ]


def test_a_hung_collector_is_reported_and_delays_nobody(
    run: _Run, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "HUNG_S", 0.1)
    _Hung.gate.clear()
    hung, _ = run.start("hung", _Hung), run.start("steady", _Steady)
    wait_until(lambda: len(run.samples()) >= 10)
    for _ in range(2):
        hung.check(time.monotonic())
    assert run.events() == [("unavailable", "hung: has not answered for 0 s")]
    _Hung.gate.set()
    wait_until(lambda: len(run.events()) == 2)
    assert run.events()[1] == ("recovered", "hung: answers again")


def test_a_collector_that_cannot_be_made_is_reported_with_a_traceback(
    run: _Run, wait_until: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run.start("broken", _Broken)
    wait_until(run.events)
    assert run.events() == [("unavailable", "broken: unexpected 0")]
    assert "Traceback" in capsys.readouterr().err


def test_a_source_that_is_not_there_is_told_apart_from_one_that_failed(
    run: _Run, wait_until: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run.start("elsewhere", _Elsewhere)
    wait_until(run.events)
    assert [(row["code"], row["severity"], row["message"]) for _, row in run.entries] == [
        ("not-applicable", "info", "elsewhere: no such thing")
    ]
    assert capsys.readouterr().err == ""


def test_the_mailbox_is_bounded_and_counts_what_it_drops() -> None:
    mailbox = Mailbox()
    mailbox.put(("host", {"time_ns": number}) for number in range(worker_module.MAX_WAITING + 5))
    entries, dropped = mailbox.take()
    assert (len(entries), dropped) == (worker_module.MAX_WAITING, 5)
    assert entries[0] == ("host", {"time_ns": 5})
    assert mailbox.take() == ([], 0)


def test_what_was_dropped_is_an_event_once_the_file_system_accepts_again(
    logbook: Logbook, rows: Callable[..., Any]
) -> None:
    output = Output(AgentSpec(logbook.path, "n1", 1.0, 5.0, Path("/dev/null")))
    away = logbook.path.rename(logbook.path.with_name("away"))
    output.append([("host", {"time_ns": 1})], dropped=3)
    assert not output.flush()
    assert not output.flush()
    away.rename(logbook.path)
    assert output.flush()
    output.close()
    ((code, message),) = rows(logbook, "SELECT code, message FROM events")
    assert code == "dropped"
    assert message == "the logbook could not be written for 0 s (the logbook is gone); 3 rows dropped"
    assert rows(logbook, "SELECT node, time_ns FROM host") == [("n1", 1)]


def test_an_output_that_is_refused_to_the_end_gives_up(logbook: Logbook, capfd: pytest.CaptureFixture[str]) -> None:
    output = Output(AgentSpec(logbook.path, "n1", 1.0, 5.0, Path("/dev/null")))
    output.append([("host", {"time_ns": 1})])
    logbook.path.rename(logbook.path.with_name("away"))
    output.close()
    assert "the logbook is gone" in capfd.readouterr().err


def test_the_sampler_loads_no_database() -> None:
    script = "import piolet.record.sampler, sys; print(sorted({'duckdb', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "[]\n"


def test_flushes_are_merged_now_and_then_in_another_process(logbook: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "_MERGE_EVERY_S", 0.0)
    output = Output(AgentSpec(logbook.path, "n1", 1.0, 5.0, Path("/dev/null")))
    for second in range(3):
        output.append([("host", {"time_ns": second})])
        output.flush()
    output.merge_new()
    assert output.merging is not None
    assert output.merging.wait(timeout=20) == 0
    found = segments.list_segments(logbook.family("host"))
    assert [each.path.name for each in found] == ["n1-000001+000003.parquet"], "what it covers stays for its readers"
    output.append([("host", {"time_ns": 3})])
    output.close()
    assert [path.name for path in logbook.family("host").iterdir()] == ["n1-000001+000004.parquet"]
