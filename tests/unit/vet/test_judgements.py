"""Each check judges what was observed; what could not be observed is never healthy."""

import pytest

from piolet.core.nouns import Status
from piolet.tools import kmsg
from piolet.vet import gpus
from piolet.vet.checks import (
    gpu_clocks,
    gpu_count,
    gpu_ecc,
    gpu_memory,
    gpu_nvlink,
    gpu_temperature,
    gpu_throttle,
    gpu_xid,
    mounts,
    pcie,
)
from piolet.vet.checks.gpu_ecc import Ecc
from piolet.vet.checks.gpu_memory import Memory
from piolet.vet.checks.gpu_xid import Logged
from piolet.vet.gpus import Gpus, Reading

GIB = 1 << 30
ANSWERS = True


def seen(*values, expected=None, lost=(), others=(), absent=""):
    readings = [Reading(f"GPU {i}", f"0:{i}:0", value=value) for i, value in enumerate(values)]
    readings += [Reading(f"GPU {i}", "", lost="the GPU is lost") for i in lost]
    return Gpus(len(readings) if expected is None else expected, tuple(readings), others, absent)


NO_STEP_GPUS = Gpus(None, ())
NO_DRIVER = Gpus(4, (), absent="libnvidia-ml.so.1 was not found")
NONE_EXPECTED = Gpus(0, ())


@pytest.mark.parametrize(
    ("observation", "parameters", "status", "reason"),
    [
        (seen(ANSWERS, ANSWERS), {}, Status.PASS, "2 GPUs answer"),
        (seen(ANSWERS, ANSWERS, ANSWERS, expected=2), {}, Status.PASS, "3 GPUs answer"),
        (seen(ANSWERS, lost=[1]), {}, Status.FAIL, "1 of 2 GPUs answer (GPU 1: the GPU is lost)"),
        (seen(ANSWERS, ANSWERS), {"expected": 4}, Status.FAIL, "2 of 4 GPUs answer"),
        (NO_DRIVER, {}, Status.FAIL, "0 of 4 GPUs answer (libnvidia-ml.so.1 was not found)"),
        (NO_STEP_GPUS, {}, Status.UNKNOWN, "Slurm granted no GPU to this step"),
        (NO_STEP_GPUS, {"expected": 0}, Status.PASS, "0 GPUs answer"),
        (NONE_EXPECTED, {}, Status.PASS, "0 GPUs answer"),
    ],
)
def test_gpu_count(observation, parameters, status, reason):
    judgement = gpu_count.judge(observation, gpu_count.Parameters(**parameters))

    assert (judgement.status, judgement.reason) == (status, reason)
    assert bool(judgement.remedy) == (status is not Status.PASS)


FINE = Ecc(0, remap_pending=False, remap_failed=False)
ERRORS = Ecc(3, remap_pending=False, remap_failed=False)
PENDING = Ecc(0, remap_pending=True, remap_failed=False)
BROKEN = Ecc(0, remap_pending=False, remap_failed=True)
OLDER = Ecc(0, None, None)
WITHOUT = Ecc(None, None, None)


@pytest.mark.parametrize(
    ("observation", "parameters", "status", "value"),
    [
        (seen(FINE, FINE), {}, Status.PASS, 0),
        (seen(FINE, ERRORS), {}, Status.FAIL, 3),
        (seen(FINE, ERRORS), {"max_uncorrected": 3}, Status.PASS, 3),
        (seen(PENDING), {}, Status.FAIL, None),
        (seen(BROKEN), {}, Status.FAIL, None),
        (seen(OLDER), {}, Status.PASS, 0),
        (seen(FINE, WITHOUT), {}, Status.UNKNOWN, None),
        (seen(FINE, WITHOUT), {"require_ecc": False}, Status.PASS, 0),
        (seen(FINE, lost=[1]), {}, Status.UNKNOWN, None),
    ],
)
def test_gpu_ecc(observation, parameters, status, value):
    judgement = gpu_ecc.judge(observation, gpu_ecc.Parameters(**parameters))

    assert (judgement.status, judgement.value) == (status, value)


@pytest.mark.parametrize(
    ("observation", "parameters", "status", "reason"),
    [
        (seen(Memory(GIB, 80 * GIB)), {}, Status.PASS, "GPU 0: 1% of its memory is in use"),
        (seen(Memory(16 * GIB, 80 * GIB)), {}, Status.PASS, "GPU 0: 20% of its memory is in use"),
        (seen(Memory(0, 80 * GIB), Memory(20 * GIB, 80 * GIB)), {}, Status.FAIL, "GPU 1: 25% of its memory is in use"),
        (seen(Memory(0, 80 * GIB, (7, 8))), {}, Status.FAIL, "GPU 0: left-over processes 7, 8"),
        (seen(Memory(0, 80 * GIB, (7,))), {"allow_processes": True}, Status.PASS, "GPU 0: 0% of its memory is in use"),
        (seen(Memory(0, 0)), {}, Status.FAIL, "GPU 0: 100% of its memory is in use"),
        (seen(Memory(0, GIB), None), {}, Status.UNKNOWN, "GPU 1: memory in use is not known"),
    ],
)
def test_gpu_memory(observation, parameters, status, reason):
    judgement = gpu_memory.judge(observation, gpu_memory.Parameters(**parameters))

    assert (judgement.status, judgement.reason) == (status, reason)


@pytest.mark.parametrize(
    ("observation", "status"),
    [(seen(25, 29), Status.PASS), (seen(25, 30), Status.FAIL), (seen(25, None), Status.UNKNOWN)],
)
def test_gpu_temperature(observation, status):
    assert gpu_temperature.judge(observation, gpu_temperature.Parameters(below_celsius=30)).status is status


def xids(*logged, found=None, error=""):
    return gpu_xid.Observation(found or seen(ANSWERS, ANSWERS), tuple(Logged(*each) for each in logged), error)


@pytest.mark.parametrize(
    ("observation", "parameters", "status", "words"),
    [
        (xids(), {}, Status.PASS, "no fatal Xid in the last 120 min"),
        (xids((79, "0:1:0", 60.0)), {}, Status.FAIL, "GPU 1: Xid 79 (GPU has fallen off the bus), 1 min ago"),
        (xids((79, "0:1:0", 7201.0)), {}, Status.PASS, "no fatal Xid"),
        (xids((79, "0:1:0", 60.0)), {"window_s": 30.0}, Status.PASS, "no fatal Xid"),
        (xids((31, "0:1:0", 60.0)), {}, Status.PASS, "seen, not fatal: Xid 31"),
        (xids((63, "0:1:0", 60.0)), {}, Status.PASS, "seen, not fatal: Xid 63"),
        (xids((63, "0:1:0", 60.0)), {"contested_fail": True}, Status.FAIL, "Xid 63"),
        (xids((31, "0:1:0", 60.0)), {"fatal": (31,)}, Status.FAIL, "Xid 31"),
        (xids((79, "0:9:0", 60.0)), {}, Status.FAIL, "GPU at 0:9:0: Xid 79"),
        (xids((79, "0:9:0", 60.0), found=seen(ANSWERS, others=("0:9:0",))), {}, Status.PASS, "no fatal Xid"),
        (xids(found=seen(ANSWERS, lost=[1])), {}, Status.FAIL, "GPU 1: the GPU is lost (as after Xid 79)"),
        (
            xids(error="/dev/kmsg: Permission denied"),
            {},
            Status.PASS,
            "could not be read (/dev/kmsg: Permission denied)",
        ),
        (xids(error="/dev/kmsg: gone"), {"require_log": True}, Status.UNKNOWN, "cannot be read"),
        (xids(error="/dev/kmsg: gone", found=seen(ANSWERS, lost=[1])), {}, Status.FAIL, "lost"),
        (xids((48, "0:1:0", 9.0), found=NONE_EXPECTED), {}, Status.FAIL, "Xid 48"),
    ],
)
def test_gpu_xid(observation, parameters, status, words):
    judgement = gpu_xid.judge(observation, gpu_xid.Parameters(**parameters))

    assert judgement.status is status
    assert words in judgement.reason


def test_xids_are_found_in_kernel_log_records():
    text = (
        "6,1,1000000,-;NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
        " SUBSYSTEM=pci\n"
        "4,2,2000000,-;usb 1-1: new device\n"
    )

    [xid] = gpu_xid.logged(text, now_s=11.0)

    assert (xid.code, xid.bus_id, xid.age_s) == (79, "0:65:0", 10.0)


def test_a_kernel_log_larger_than_one_read_is_read_whole(tmp_path):
    log = tmp_path / "kmsg"
    log.write_text("6,1,1,-;x\n" * 50_000, encoding="utf-8")

    assert len(kmsg.read_log(log)) == log.stat().st_size


@pytest.mark.parametrize("check", [gpu_clocks, gpu_ecc, gpu_memory, gpu_nvlink, gpu_temperature, gpu_throttle, pcie])
@pytest.mark.parametrize(
    ("observation", "status"),
    [
        (NO_DRIVER, Status.UNKNOWN),
        (NO_STEP_GPUS, Status.UNKNOWN),
        (seen(lost=[0]), Status.UNKNOWN),
        (NONE_EXPECTED, Status.PASS),
    ],
)
def test_without_a_gpu_to_look_at_only_none_expected_is_fine(check, observation, status):
    parameters = check.Parameters(below_celsius=30) if check is gpu_temperature else check.Parameters()

    assert check.judge(observation, parameters).status is status
    assert gpu_xid.judge(gpu_xid.Observation(NO_DRIVER), gpu_xid.Parameters()).status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_GPUS": "0,2"}, 2),
        ({"SLURM_JOB_ID": "1", "SLURM_JOB_GPUS": "0-3"}, 4),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_GPUS": "1", "SLURM_JOB_GPUS": "0-3"}, 1),
        ({"SLURM_JOB_ID": "1"}, None),
    ],
)
def test_slurm_says_how_many_gpus_there_must_be(environ, expected):
    assert gpus.expected_count(environ) == expected


def test_without_slurm_the_bus_says_it(tmp_path):
    devices = (("0x10de", "0x030200"), ("0x10de", "0x030000"), ("0x10de", "0x040300"), ("0x8086", "0x030000"))
    for index, (vendor, kind) in enumerate(devices):
        (tmp_path / f"0000:0{index}:00.0").mkdir()
        (tmp_path / f"0000:0{index}:00.0" / "vendor").write_text(vendor + "\n", encoding="ascii")
        (tmp_path / f"0000:0{index}:00.0" / "class").write_text(kind + "\n", encoding="ascii")

    assert gpus.on_the_bus(tmp_path) == 2
    assert gpus.on_the_bus(tmp_path / "no-pci") == 0


def test_mounts_answer_or_are_named():
    context = None

    observation = mounts.observe(mounts.Parameters(paths=("/proc/", "/proc/self")), context)
    judgement = mounts.judge(observation, mounts.Parameters())

    assert [mount.trouble for mount in observation] == ["", "nothing is mounted there"]
    assert judgement.status is Status.FAIL
    assert judgement.reason == "/proc/self: nothing is mounted there"
