"""What a job did with storage, out of its logbook, and how often its nodes fail."""

from __future__ import annotations

import json
from dataclasses import replace

import made_logbooks
import pytest
from made_logbooks import SECOND_NS, START_NS

from piolet.cli.main import run_command
from piolet.core.errors import UsageError
from piolet.core.nouns import Interval
from piolet.data.jobs import findings
from piolet.fleet.evidence import Evidence, Kind
from piolet.fleet.ledger import Entry
from piolet.launch import failure_rate
from piolet.logbook.records import Domain, Outcome, write_outcome
from piolet.logbook.storage import Checkpoints, JobStorage, MountUse, job_storage

INTERVAL = Interval(START_NS, START_NS + 100 * SECOND_NS)
SMALL, LARGE = 50_000, 4 << 20


def fs(second: float, *, size: int, ops: float, node: str = "node1", **more: object) -> tuple[str, dict[str, object]]:
    values = {"read_bytes_per_s": size * ops, "read_ops_per_s": ops, "read_latency_s": 0.01, "kind": "nfs"}
    return "fs", {"time_ns": START_NS + round(second * SECOND_NS), "node": node, "fs": "/scratch", **values, **more}


def test_bytes_reads_and_the_share_of_small_ones():
    rows = [fs(second, size=SMALL, ops=30, metadata_ops_per_s=7.0) for second in range(10)]
    rows += [fs(second, size=LARGE, ops=10, node="node2", write_bytes_per_s=5.0) for second in range(10)]

    [mount] = job_storage(made_logbooks.in_memory(rows), INTERVAL).mounts

    assert (mount.fs, mount.kind, mount.nodes) == ("/scratch", "nfs", 2)
    assert mount.read_bytes == pytest.approx(10 * (30 * SMALL + 10 * LARGE))
    assert (mount.read_ops, mount.write_bytes, mount.metadata_ops) == (400, 50, 70)
    assert mount.small_read_share == pytest.approx(0.75)
    assert mount.mean_read_bytes == pytest.approx(mount.read_bytes / 400)
    assert mount.read_latency_s == pytest.approx(0.01)
    assert mount.peak_read_bytes_per_s == pytest.approx(30 * SMALL + 10 * LARGE)
    assert (mount.peak_write_bytes_per_s, mount.write_latency_s) == (5, None)


def test_a_gap_counts_for_three_periods_and_a_disk_that_nobody_read_has_no_shares():
    rows = [fs(0, size=LARGE, ops=1), fs(90, size=LARGE, ops=1)]
    idle = [("fs", {"time_ns": START_NS, "node": "node1", "fs": "sda", "kind": "disk", "write_bytes_per_s": 1.0})]

    scratch, disk = job_storage(made_logbooks.in_memory(rows + idle), INTERVAL).mounts

    assert scratch.read_ops == 1 + 3
    assert (disk.fs, disk.read_ops, disk.small_read_share, disk.mean_read_bytes) == ("sda", 0, None, None)


def test_what_was_not_recorded_is_not_known():
    found = job_storage(made_logbooks.in_memory([]), INTERVAL)

    assert found == JobStorage(100.0, (), None, None)
    assert found.stall_share is None
    assert findings(found) == ()


def test_checkpoints_and_stalls_of_a_training_job(tmp_path, capsys):
    logbook = made_logbooks.training(tmp_path)

    assert run_command(["data", "io", str(logbook.path), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)

    assert (found["checkpoints"]["count"], found["checkpoints"]["median_s"]) == (1, 8)
    assert 40 <= found["stall_s"] <= 44, (
        "20 s of input stall and 24 s of start-up; one node was not recorded for a while"
    )
    assert [each["subject"] for each in found["findings"]] == ["job"]
    assert run_command(["data", "io", str(logbook.path)]) == 1
    said = capsys.readouterr().out
    assert "no mount was recorded" in said
    assert "1 checkpoints of 8.0 s, 4.0% of the time" in said
    assert "piolet data stage" in said


def test_each_figure_that_is_bad_is_a_finding():
    mount = MountUse("/scratch", "lustre", 4, 1e12, 0, 1e6, 0.9, 50_000, 1e6, 0.01, None, 1e9, 0)
    bad = JobStorage(100.0, (mount,), Checkpoints(5, 4.0, 6.0, 0.2, 1e9), 30.0)

    said = [finding.reason for finding in findings(bad)]

    assert [reason.split()[0] for reason in said] == ["30%", "90%", "10", "20%"]
    disk = JobStorage(100.0, (replace(mount, kind="disk", metadata_ops=0),), None, None)
    assert findings(disk) == (), "the kernel cuts what is read of a disk"
    good = JobStorage(100.0, (replace(mount, read_ops=10, metadata_ops=10),), Checkpoints(1, 4.0, 4.0, 0.01, None), 1.0)
    assert findings(good) == ()


def test_the_report_says_what_the_job_did_with_storage(tmp_path):
    rows = [fs(second, size=SMALL, ops=2000, metadata_ops_per_s=9.0, fs="/scratch/<me>") for second in range(80)]
    rows += [("events", {"time_ns": START_NS, "node": "node1", "kind": "phase", "code": "checkpoint"})]
    rows += [("events", {"time_ns": START_NS + 9 * SECOND_NS, "node": "node1", "kind": "phase", "code": "train"})]
    logbook = made_logbooks.write(tmp_path, made_logbooks.job(seconds=90.0), rows)

    assert run_command(["score", str(logbook.path), "--html", str(tmp_path / "report.html"), "--brief"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")

    section = page.partition('<h2 id="storage">')[2].partition("</section>")[0]
    assert "1 checkpoint of 9.0 s took 10\N{NO-BREAK SPACE}% of the time." in section
    assert "100% of 160\N{NO-BREAK SPACE}000 reads were small (50 kB on average)" in section
    assert "Pack the files into one image and mount it: piolet data pack" in section
    assert "/scratch/&lt;me&gt;" in section
    assert "8.0 GB <small>at most 100 MB/s" in section
    assert "720 <small>operations" in section


def test_a_job_of_which_nothing_was_recorded_is_told(tmp_path, capsys):
    logbook = made_logbooks.write(tmp_path, replace(made_logbooks.job(), program_started_ns=None), [])

    assert run_command(["data", "io", str(logbook.path)]) == 2
    assert "nothing was recorded yet" in capsys.readouterr().err


def jobs(failed: int, *, hours: float = 100.0) -> list:
    record = made_logbooks.job(("node1", "node2"), seconds=hours * 3600)
    ends = [Domain.INFRASTRUCTURE] * failed + [Domain.WORKLOAD, Domain.NONE]
    return [(record, Outcome("FAILED", 1, domain=domain)) for domain in ends] + [(record, None)]


def test_the_rate_that_jobs_have_met():
    rate = failure_rate.of_jobs(jobs(5), "here")

    assert (rate.failures, rate.node_hours) == (5, 8 * 2 * 100)
    assert rate.node_mtbf_s == pytest.approx(8 * 2 * 100 * 3600 / 5)
    with pytest.raises(UsageError, match=r"2 failures in 1000 node hours tell no rate"):
        _ = failure_rate.of_jobs(jobs(2), "here").node_mtbf_s


def test_the_rate_that_the_fleet_has_seen_counts_a_burst_once():
    def seen(hour: float, node: str) -> Entry:
        evidence = Evidence(f"{hour}{node}", round(hour * failure_rate.HOUR_NS), Kind.XID, "79", node)
        return Entry(1, evidence.time_ns, evidence, "", "")

    entries = [seen(0, "node1"), seen(0.1, "node1"), seen(0.9, "node1"), seen(10, "node1"), seen(100, "node2")]
    rate = failure_rate.of_ledger(entries, "ledger")

    assert (rate.failures, rate.node_hours) == (3, 200)
    assert failure_rate.of_ledger([], "ledger").node_hours == 0


def test_the_plan_takes_cost_and_failures_from_logbooks(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PIOLET_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    logbook = made_logbooks.training(tmp_path)
    plan = ["data", "ckpt", "plan", "--from-job", str(logbook.path), "--failures", "logbooks"]

    assert run_command(plan) == 2
    assert "0 failures in 0 node hours tell no rate" in capsys.readouterr().err
    for number in range(3):
        record = replace(made_logbooks.job(("node1",), seconds=3600.0 * 1000), job_id=str(number))
        write_outcome(
            made_logbooks.write(tmp_path, record, []).outcome, Outcome("NODE_FAIL", 1, domain=Domain.INFRASTRUCTURE)
        )
    assert run_command([*plan, "--format", "json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["write_s"], round(found["mtbf_s"] / 3600)) == (8, 250), "3 of 3000 node hours, on 4 nodes"
    assert "3 failures in 3000 node hours" in said.err
    assert run_command(["data", "ckpt", "plan", "--from-job", str(tmp_path / "lab/0"), "--mtbf-hours", "8"]) == 2
    assert 'piolet.phase("checkpoint")' in capsys.readouterr().err
