"""Drives, hardware errors, services and containers: recordings in documented forms, and what this machine has."""

import json
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from piolet.core.errors import ParseError
from piolet.core.nouns import Status
from piolet.core.run import Result
from piolet.vet.check import Context
from piolet.vet.checks import container, drives, hardware_errors, services
from piolet.vet.checks.container import Started
from piolet.vet.checks.drives import Drive
from piolet.vet.checks.hardware_errors import Errors
from piolet.vet.checks.services import Service

HERE = Context({})


@dataclass(frozen=True)
class Says:
    """A runner of which every program says the same."""

    rc: int
    stdout: str

    def run(self, argv, **_):
        return Result(tuple(argv), self.rc, self.stdout, "")


def smartctl(*, passed=True, **log):
    """What smartctl 7.3 prints of an NVMe drive, in its documented form."""
    health = {"critical_warning": 0, "temperature": 41, "available_spare": 100, "available_spare_threshold": 10,
              "percentage_used": 3, "media_errors": 0}  # fmt: skip
    return json.dumps({"smart_status": {"passed": passed}, "nvme_smart_health_information_log": health | log})


ATA = json.dumps(
    {
        "smart_status": {"passed": True},
        "ata_smart_attributes": {
            "table": [
                {"id": 5, "name": "Reallocated_Sector_Ct", "raw": {"value": 8, "string": "8"}},
                {"id": 197, "name": "Current_Pending_Sector", "raw": {"value": 2, "string": "2"}},
            ]
        },
    }
)


@pytest.mark.parametrize(
    ("text", "parameters", "status", "reason"),
    [
        (smartctl(), {}, Status.PASS, "1 drives are well"),
        (smartctl(passed=False), {}, Status.FAIL, "d: it says itself that it fails"),
        (smartctl(critical_warning=4), {}, Status.FAIL, "d: critical warning 0x04"),
        (smartctl(available_spare=5), {}, Status.FAIL, "d: 5% of its spare blocks are left"),
        (smartctl(media_errors=7), {}, Status.FAIL, "d: 7 media errors"),
        (smartctl(media_errors=7), {"max_media_errors": 7}, Status.PASS, "1 drives are well"),
        (smartctl(percentage_used=104), {}, Status.FAIL, "d: 104% of its life is used"),
        (smartctl(percentage_used=104), {"max_used_fraction": 1.2}, Status.PASS, "1 drives are well"),
        (ATA, {}, Status.FAIL, "d: 2 media errors"),
        ("{}", {}, Status.PASS, "1 drives are well; not told: d (it has no SMART)"),
        ("{}", {"require_smart": True}, Status.UNKNOWN, "not told: d (it has no SMART)"),
    ],
)
def test_a_drive_is_judged_by_its_own_word(text, parameters, status, reason):
    judgement = drives.judge((drives.parse("d", text),), drives.Parameters(**parameters))

    assert (judgement.status, judgement.reason) == (status, reason)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"smart_status": {}}', '{"smart_status": {"passed": true}, "ata_smart_attributes": 3}']
)
def test_garbage_of_smartctl_is_no_answer(text):
    with pytest.raises(ParseError):
        drives.parse("d", text)


def test_a_drive_that_may_not_be_asked_and_controllers_that_are_dead(tmp_path):
    for name, state in (("nvme0", "live\n"), ("nvme1", "dead\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state").write_text(state)
    refused = Says(2, "{}")

    assert list(drives.controllers(tmp_path)) == [Drive("nvme1", trouble="its controller is dead")]
    assert drives.asked(refused, "sda") == Drive("sda", silent="it may not be asked")


def test_drives_of_this_machine_are_judged():
    parameters = drives.Parameters()

    assert drives.judge(drives.observe(parameters, HERE), parameters).status in {Status.PASS, Status.FAIL}


MACHINE_CHECK = "3,10,5000000,-;mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: {}00000000800400\n"
EDAC = "4,11,6000000,-;EDAC MC0: {} memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0 (channel:1 slot:0)\n"


@pytest.mark.parametrize(
    ("text", "since_s", "found"),
    [
        (MACHINE_CHECK.format("be"), 0, [Errors("bank 5", "kernel log", 0, 1)]),
        (MACHINE_CHECK.format("9c"), 0, [Errors("bank 5", "kernel log", 1, 0)]),
        (MACHINE_CHECK.format("be"), 6, []),
        (EDAC.format("3 CE"), 0, [Errors("MC0", "kernel log", 3, 0)]),
        (EDAC.format("1 UE"), 0, [Errors("MC0", "kernel log", 0, 1)]),
        ("6,12,7000000,-;EDAC MC: Ver: 3.0.0\n6,13,8000000,-;Bank of America\n", 0, []),
    ],
)
def test_machine_checks_of_a_kernel_log(text, since_s, found):
    assert list(hardware_errors.logged(text, since_s)) == found


@pytest.mark.parametrize("by_module", [True, False])
def test_counters_of_edac(tmp_path, by_module):
    place = tmp_path / "mc0" / "dimm3" if by_module else tmp_path / "mc0"
    place.mkdir(parents=True)
    prefix = "dimm_" if by_module else ""
    for name, text in ((f"{prefix}ce_count", "7\n"), (f"{prefix}ue_count", "1\n"), ("dimm_label", "A1\n")):
        (place / name).write_text(text)

    assert list(hardware_errors.controllers(tmp_path)) == [Errors("A1", "EDAC", 7, 1)]


def test_what_rasdaemon_has_recorded(tmp_path):
    """Tables with the columns of rasdaemon 0.6.8 that are read."""
    database, now_s = tmp_path / "ras-mc_event.db", time.time()
    recent, old = (time.strftime("%F %T +0000", time.localtime(now_s - age_s)) for age_s in (60, 90000))
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE mc_event (timestamp TEXT, err_type TEXT, err_count INTEGER, label TEXT)")
        connection.execute("CREATE TABLE mce_record (timestamp TEXT, bank INTEGER, status INTEGER)")
        rows = [(recent, "Corrected", 3, "A1"), (recent, "Corrected", 4, "A1"), (recent, "Uncorrected", 1, "B2")]
        connection.executemany("INSERT INTO mc_event VALUES (?, ?, ?, ?)", [*rows, (old, "Fatal", 1, "C3")])
        connection.execute("INSERT INTO mce_record VALUES (?, 5, ?)", [recent, 0xBE00000000800400 - (1 << 64)])
    connection.close()

    found = list(hardware_errors.recorded(database, now_s - 86400))

    assert found == [
        Errors("A1", "rasdaemon", 7, 0),
        Errors("B2", "rasdaemon", 0, 1),
        Errors("bank 5", "rasdaemon", 0, 1),
    ]
    assert list(hardware_errors.recorded(tmp_path / "nowhere.db", 0)) == []


@pytest.mark.parametrize(
    ("observation", "status", "reason"),
    [
        ((), Status.PASS, "no hardware error is told here"),
        ((Errors("A1", "EDAC", 1000),), Status.PASS, "1000 corrected errors at most"),
        ((Errors("A1", "EDAC", 600), Errors("A1", "EDAC", 401)), Status.FAIL, "A1: 1001 corrected errors (EDAC)"),
        ((Errors("A1", "EDAC", 5), Errors("B2", "EDAC", 0, 2)), Status.FAIL, "B2: 2 uncorrected errors (EDAC)"),
    ],
)
def test_hardware_errors(observation, status, reason):
    judgement = hardware_errors.judge(observation, hardware_errors.Parameters())

    assert (judgement.status, judgement.reason) == (status, reason)


def test_programs_of_this_machine():
    own = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    parameters = services.Parameters(programs=(own, "a-program-that-nobody-has"))

    judgement = services.judge(services.observe(parameters, HERE), parameters)

    assert (judgement.status, judgement.reason) == (Status.FAIL, "a-program-that-nobody-has: not running")


def test_units_of_systemd():
    told = services.units(Says(3, "active\nfailed\n"), ("chronyd", "slurmd"))

    assert told == (Service("chronyd", "active"), Service("slurmd", "failed"))
    assert services.judge(told, services.Parameters()).reason == "slurmd: failed"


@pytest.mark.parametrize(
    ("observation", "status"),
    [
        ((), Status.UNKNOWN),
        ((Service("a", "active"),), Status.PASS),
        ((Service("a", "unknown"), Service("b", "active")), Status.UNKNOWN),
        ((Service("a", "unknown"), Service("b", "failed")), Status.FAIL),
    ],
)
def test_services(observation, status):
    assert services.judge(observation, services.Parameters()).status is status


FAULT = """piolet: the container could not be started on n1; the program was not run
  stage:  require
  reason: environment requires /nowhere, which the container does not have
  next:   correct it in the EDF, or switch the hook off
"""


@pytest.mark.parametrize(
    ("started", "status", "reason"),
    [
        (Started(0, "", 3), Status.PASS, "it starts, and 3 promises hold in it"),
        (
            Started(3, FAULT, 0),
            Status.FAIL,
            "require: environment requires /nowhere, which the container does not have",
        ),
        (Started(7, "no such file\n", 3), Status.FAIL, "true ended with status 7 in the container: no such file"),
        (Started(1, "", 0, late=True), Status.FAIL, "the container did not start in time"),
    ],
)
def test_container(started, status, reason):
    judgement = container.judge(started, container.Parameters("a.plan"))

    assert (judgement.status, judgement.reason) == (status, reason)
