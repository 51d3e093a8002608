from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import StorageError, ToolError
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Gpu
from piolet.core.run import Result
from piolet.core.settings import Settings
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read
from piolet.logbook.records import read_job
from piolet.record import election, site
from piolet.record.collector import Context
from piolet.record.exporter import Holder
from piolet.record.site import HOLD_NS, Held, Site, belongs, uuids_of
from piolet.record.site_writer import JobWriter, WriterSpec
from piolet.tools.nvml import Device
from piolet.tools.slurm import listpids
from piolet.tools.slurm.job import Job
from piolet.tools.slurm.states import JobState

JOB = Job(7, "7", JobState.RUNNING, user="ana", nodes=NodeSet("n1"), start_ns=100)
LISTED = """PID      JOBID    STEPID   LOCALID GLOBALID
21248    7        batch    0       0
21252    7        batch    -       -
-1       8        extern   0       0
300      9        0        0       0
"""


def test_a_process_of_each_job_is_known() -> None:
    assert listpids.parse(LISTED) == {7: 21248, 9: 300}
    assert listpids.argv("n1") == ["scontrol", "listpids", "*", "n1"]


class Runner:
    """Answers with a status and what scontrol says."""

    def __init__(self, rc: int, stderr: str) -> None:
        self.rc, self.stderr = rc, stderr

    def run(self, argv: Any, **_: Any) -> Result:
        raise ToolError(argv, self.rc, self.stderr)


def test_a_node_without_jobs_is_no_error_and_a_silent_one_is() -> None:
    assert listpids.pids(Runner(1, "No job steps exist on this node."), "n1") == {}
    with pytest.raises(ToolError):
        listpids.pids(Runner(1, "Unable to open step list"), "n1")


def test_the_service_tells_prometheus_whose_the_node_and_its_gpus_are() -> None:
    service = Site(Settings(), "n1", "alps")
    devices = [Device(None, index, uuid, "", None, "", None, simulated=False) for index, uuid in enumerate("ABC")]
    service.context = Context({}, StorageError("none"), devices=devices)
    service.held = {
        7: Held(JOB, frozenset({"A", "C"}), 100),
        8: Held(replace(JOB, id=8), frozenset({"B"}), 100, end_ns=200),
    }
    [holder] = service._holders()
    assert holder == Holder({"slurm_job": "7", "cluster": "alps", "user": "ana", "name": ""}, [(0, "A"), (2, "C")])


@given(
    start=st.integers(0, 100),
    length=st.none() | st.integers(0, 100),
    time=st.integers(0, 200),
    uuid=st.sampled_from(["A", "B", None]),
)
def test_a_sample_is_a_jobs_only_while_it_held_the_gpu(start: int, length: int | None, time: int, uuid: Any) -> None:
    held = Held(JOB, frozenset({"A"}), start, None if length is None else start + length)
    within = start <= time and (length is None or time < start + length)
    assert belongs("gpu", {"time_ns": time, "uuid": uuid}, held) == (within and uuid == "A")
    assert belongs("host", {"time_ns": time}, held) == within
    assert belongs("events", {"time_ns": time, "uuid": uuid}, held) == (within and uuid in {"A", None})


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=5), st.integers(0, 60))
def test_jobs_that_hold_a_gpu_one_after_the_other_never_share_a_sample(spans: Any, time: int) -> None:
    edges = sorted({edge for span in spans for edge in span})
    held = [Held(JOB, frozenset({"A"}), start, end) for start, end in pairwise(edges)]
    assert sum(belongs("gpu", {"time_ns": time, "uuid": "A"}, each) for each in held) <= 1


def test_slurm_counts_device_files() -> None:
    devices = [Device(None, index, f"U{index}", "", None, "", 3 - index, simulated=False) for index in range(4)]
    assert uuids_of([0, 1], devices) == {"U3", "U2"}
    assert uuids_of([0, 9], [replace(device, minor=None) for device in devices]) == {"U0"}


class Told:
    """A writer that notes what it is told."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.closed = False
        self.dropped = 0
        self.process = self

    def poll(self) -> int | None:
        return 0 if self.closed else None

    def send(self, family: str, row: Any) -> None:
        self.rows.append((family, row["time_ns"]))

    def close(self) -> None:
        self.closed = True


def test_samples_wait_until_the_jobs_of_their_time_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Site(Settings(), "n1", "alps", runner=Runner(1, "No job steps exist on this node."))
    service.context = Context({}, StorageError("none"))
    told = Told()
    service.held[7], service.writers[7] = Held(JOB, frozenset(), 100), told
    service.mailbox.put([("host", {"time_ns": time}) for time in (50, 100, 200, 300)])
    monkeypatch.setattr(site.jobs, "find", lambda *_: replace(JOB, state=JobState.COMPLETED, end_ns=250))
    service.turn(HOLD_NS + 150)
    assert (told.rows, told.closed) == ([("host", 100)], False)
    service.turn(HOLD_NS + 400)
    assert (told.rows, told.closed) == ([("host", 100), ("host", 200)], True)
    assert (service.held, service.writers, service.ending) == ({}, {}, [])


def spec(tmp_path: Path, user: str) -> WriterSpec:
    return WriterSpec(7, user, "train", ("n1",), 1, 2, str(tmp_path), "alps", "n1", 1, 1.0, 1.0, {})


def test_job_json_names_the_gpus_of_every_node_that_told_of_its_own(tmp_path: Path) -> None:
    here, there = Gpu(2, "GPU-a", "H100", 80 << 30), Gpu(0, "GPU-b", "H100", 80 << 30)
    first = JobWriter(replace(spec(tmp_path, "ana"), nodes=("n1", "n2"), gpus=(here,)))
    second = JobWriter(replace(spec(tmp_path, "ana"), nodes=("n1", "n2"), node="n2", gpus=(there,)))
    book = Logbook(tmp_path / "alps/7")
    assert read_job(book.job).gpus == (("n1", here),), "its own from the beginning"
    second._finish()
    first._finish()
    assert read_job(book.job).gpus == (("n1", here), ("n2", there))


def test_a_writer_gives_way_to_the_users_own_recorder(tmp_path: Path) -> None:
    writer = JobWriter(spec(tmp_path, "ana"))
    book = Logbook(tmp_path / "alps/7")
    row = {"time_ns": 1, "cpu_busy_ratio": 0.5}
    elected = election.bind(writer._address)
    assert elected is not None
    with elected:
        writer._append("host", row)
        writer.flush()
    writer._append("host", row | {"time_ns": 2})
    writer.flush()
    with read(book) as reader:
        assert reader.database.execute("SELECT time_ns, node FROM host").fetchall() == [(2, "n1")]
    assert writer._ours
    assert not JobWriter(spec(tmp_path, "ana"))._ours, "the second joins the logbook of the first"
