"""Pages of a job that begins, is flushed, merged, diagnosed and ended while they are asked for: never a failure."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import made_logbooks

from piolet.core.nouns import CheckResult, Status
from piolet.logbook import merging
from piolet.logbook.layout import create
from piolet.logbook.records import Findings, Outcome, write_checks, write_findings, write_job, write_outcome
from piolet.logbook.writer import SegmentWriter

NODES = ["node1", "node2"]
FLUSHES = 8
JOB = "/jobs/lab/4711"
PAGES = (
    *("/", JOB, f"{JOB}/nodes", f"{JOB}/nodes/node2", f"{JOB}/spark.svg", f"{JOB}/report", f"{JOB}/logbook.tar"),
    *(f"{JOB}/series?metric=gpu.power_w", f"{JOB}/series?metric=host.cpu_busy_ratio&split=node", "/nodes/lab/node1"),
    *("/compare?a=lab/4711&b=lab/4711", f"{JOB}/files/job.json"),
)


def lived(root: Path, turn: threading.Semaphore) -> None:
    """Live the life of a job: every record is written as `piolet run` and the recorders write it.

    Between two merges every page is asked for, as recorders merge every ten minutes; all else goes as fast as it can.
    """
    record = made_logbooks.job(NODES, 1, FLUSHES, user="ada", program_ended_ns=None, program_started_ns=None)
    logbook = create(root, "lab", "4711")
    write_job(logbook.job, record)
    writers = {node: SegmentWriter(logbook, node) for node in NODES}
    for number in range(FLUSHES):
        for node, writer in writers.items():
            values = {"sm_active": 0.8, "tensor_active": 0.5, "dram_active": 0.4, "power_w": 400.0}
            writer.append("gpu", made_logbooks.row(node, 0, number + 0.5, **values))
            at = {"time_ns": made_logbooks.START_NS + number * made_logbooks.SECOND_NS, "node": node}
            writer.append("host", at | {"cpu_busy_ratio": 0.5})
            writer.append("events", at | {"kind": "user", "severity": "info", "message": "on"})
            writer.flush()
        if number % 4 == 3:
            turn.acquire()
            for node in NODES:
                merging.merge_node(logbook, node, new=True)
        if number == FLUSHES // 4:
            write_checks(logbook.vet, "before", [CheckResult("ecc", node, Status.PASS, "") for node in NODES])
            write_job(logbook.job, made_logbooks.job(NODES, 1, FLUSHES, user="ada", program_ended_ns=None))
    for writer in writers.values():
        writer.close()
    write_job(logbook.job, made_logbooks.job(NODES, 1, FLUSHES, user="ada"))
    write_findings(logbook.findings, Findings(1, complete=True))
    write_outcome(logbook.outcome, Outcome("COMPLETED", 0, ended_ns=1))


def test_a_job_is_shown_at_every_moment_of_its_life(site: Any) -> None:
    turn = threading.Semaphore(0)
    ada, living = site.visitor("ada"), threading.Thread(target=lived, args=(site.root, turn))
    living.start()
    wrong = []
    while living.is_alive():
        for path in PAGES:
            for headers in ({}, {"X-Fragment": "1"}) if path == JOB else ({},):
                answer = ada.get(path, headers=headers)
                begun = "no job lab/4711" not in answer.text and "that you may see" not in answer.text
                if answer.status_code != 200 and begun and "no node" not in answer.text:
                    wrong.append((path, answer.status_code, answer.text[:200]))
        turn.release()
    living.join()
    assert wrong == []
    assert "completed" in ada.get(JOB).text
    assert ada.get(f"{JOB}/series?metric=gpu.power_w").json()["coverage"] == 1.0
