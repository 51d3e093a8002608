from __future__ import annotations

import json
import time

import pytest
from fleet_service import NODES

from piolet.core.errors import StorageError
from piolet.fleet import gpus, reports
from piolet.fleet.gpus import Memory, Seen
from piolet.fleet.identity import Caller, Scope

LOG = """\
6,41,1000000,-;usb 1-1: new device
6,42,90000000000,-;NVRM: Xid (PCI:0000:65:00): 79, pid=1, GPU has fallen off the bus.
6,43,3000000,-;NVRM: Xid (PCI:0000:66:00): 31, pid=2, MMU fault
"""
NOW_NS = time.time_ns()
UNWELL = Memory("GPU-b", "165", 3, 1_000_000, 513, remap_pending=True, remap_failed=True, sram_threshold=True)


def told(*memories: Memory, job: str = "") -> list[dict]:
    return gpus.items(Seen("boot-1234567", NOW_NS, 90_060.0, LOG, {"0:65:0": "GPU-a"}, memories), "n1", job)


def test_an_xid_of_the_log_names_its_gpu_its_time_and_the_job_and_an_old_one_is_no_news() -> None:
    (xid,) = told(Memory("GPU-a", "164"), job="7")
    assert (xid["id"], xid["code"], xid["gpu"], xid["serial"], xid["job"]) == (
        "boot-123:xid:42",
        "79",
        "GPU-a",
        "164",
        "7",
    )
    assert xid["time_ns"] == NOW_NS - 60 * 10**9
    assert xid["message"] == "Xid 79 on PCI 0:65:0: pid=1, GPU has fallen off the bus."


def test_memory_that_is_unwell_is_told_with_its_counts_and_once() -> None:
    facts = told(UNWELL)[1:]
    assert {(one["kind"], one["code"], one["value"]) for one in facts} == {
        ("ecc", "uncorrected", 3.0),
        ("ecc", "corrected", 1e6),
        ("ecc", "sram-threshold", 1.0),
        ("remap", "uncorrectable", 513.0),
        ("remap", "pending", 1.0),
        ("remap", "failed", 1.0),
    }
    again = told(Memory("GPU-b", "165", 4, 1_000_001, 513, remap_pending=True, remap_failed=True, sram_threshold=True))
    assert [one["code"] for one in again if one["id"] not in {fact["id"] for fact in told(UNWELL)}] == ["uncorrected"]
    assert told(Memory("GPU-b", "165", 0, 0, 0)) == told()


def test_what_a_node_tells_is_a_report_that_the_service_takes() -> None:
    caller = Caller("node:root", frozenset({Scope.SUBMIT}))
    body = json.dumps({"evidence": told(UNWELL, job="7")}).encode()
    assert len(reports.parse(body, caller, NODES, NOW_NS)) == 7


def test_a_log_that_cannot_be_read_is_an_error(tmp_path) -> None:
    with pytest.raises(StorageError, match="kernel log"):
        gpus.look(tmp_path / "none")
