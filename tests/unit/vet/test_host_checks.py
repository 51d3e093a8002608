"""Disk, memory, processors, clock and processes of this machine, and what would make them fail."""

import ctypes
import json
import math
import os
import platform
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import ParseError
from piolet.core.nouns import Status
from piolet.core.run import ReplayRunner, Result
from piolet.vet.check import Context
from piolet.vet.checks import clock, cpu, disk, memory, processes
from piolet.vet.checks.clock import Clock
from piolet.vet.checks.cpu import Cpus
from piolet.vet.checks.disk import Usage
from piolet.vet.checks.processes import Observation, Process, Stranger
from piolet.vet.gpus import Gpus, Reading

CLONE_VFORK = 0x4000
HERE = Context({"SLURM_JOB_ID": "1"})
fractions = st.floats(0, 1)


@pytest.mark.parametrize(
    ("usage", "parameters", "status", "reason"),
    [
        (Usage("/a", 0.84), {}, Status.PASS, "/a: 84% of its space is in use"),
        (Usage("/a", 0.85), {}, Status.FAIL, "/a: 85% of its space is in use"),
        (Usage("/a", 0.1, 0.9), {}, Status.FAIL, "/a: 90% of its inodes is in use"),
        (Usage("/a", read_only=True), {}, Status.FAIL, "/a: mounted read-only"),
        (Usage("/a", read_only=True), {"writable": False}, Status.PASS, "/b: 50% of its space is in use"),
        (Usage("/a", trouble="Input/output error"), {}, Status.FAIL, "/a: Input/output error"),
    ],
)
def test_disk(usage, parameters, status, reason):
    judgement = disk.judge((Usage("/b", 0.5), usage), disk.Parameters(**parameters))

    assert (judgement.status, judgement.reason) == (status, reason)


@given(fractions, fractions, fractions)
def test_a_fuller_disk_is_never_better(space, inodes, more):
    def passes(space, inodes):
        return disk.judge((Usage("/a", space, inodes),), disk.Parameters()).status is Status.PASS

    assert passes(space, inodes) == (space < 0.85 and inodes < 0.85)
    assert passes(space, inodes) >= passes(max(space, more), inodes)


def test_directories_of_this_machine_are_seen(tmp_path):
    parameters = disk.Parameters(paths=(str(tmp_path), "/proc", str(tmp_path / "absent")))

    room, without_blocks, absent = disk.observe(parameters, HERE)

    free = os.statvfs(tmp_path)
    used = free.f_blocks - free.f_bfree
    assert room.space == pytest.approx(used / (used + free.f_bavail), abs=0.01)
    assert (without_blocks.space, without_blocks.trouble) == (0.0, "")
    assert absent.trouble == "No such file or directory"
    assert disk.judge((room, absent), parameters).status is Status.FAIL


@given(st.integers(1, 1 << 24), st.floats(0, 0.99), st.floats(-1, 1))
def test_memory_passes_exactly_within_its_tolerance(expected_mib, tolerance, off):
    found_mib = expected_mib * (1 + off)

    judgement = memory.judge(round(found_mib * memory.MIB), memory.Parameters(expected_mib, tolerance))

    if abs(abs(off) - tolerance) > 1e-6:
        assert judgement.status is (Status.PASS if abs(off) < tolerance else Status.FAIL)
    assert bool(judgement.remedy) == (judgement.status is Status.FAIL)


def test_the_memory_of_this_machine_is_seen():
    found = memory.observe(memory.Parameters(1), HERE)

    assert found == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.01)
    assert memory.judge(found, memory.Parameters(found // memory.MIB)).status is Status.PASS
    assert memory.judge(found, memory.Parameters(2 * found // memory.MIB)).status is Status.FAIL


EPYC = "".join(
    f"processor\t: {n}\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7763 64-Core Processor\nflags\t\t: fpu\n\n"
    for n in range(3)
)
GRACE = "".join(
    f"processor\t: {n}\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU variant\t: 0x0\nCPU part\t: 0xd4f\n\n"
    for n in range(2)
)


def test_processors_are_named_and_counted():
    assert cpu.parse_cpuinfo(EPYC) == (("AMD EPYC 7763 64-Core Processor",), 3)
    assert cpu.parse_cpuinfo(GRACE) == (("0x41/0xd4f",), 2)
    assert cpu.parse_cpuinfo("") == ((), 0)
    assert cpu.observe(cpu.Parameters(), HERE).count == os.sysconf("SC_NPROCESSORS_ONLN")


CPUS = Cpus(("AMD EPYC 7763 64-Core Processor",), 128, ("performance",))


@pytest.mark.parametrize(
    ("cpus", "parameters", "status", "words"),
    [
        (CPUS, {}, Status.PASS, "128 CPUs; governor: performance"),
        (CPUS, {"model": "EPYC 7763", "count": 128}, Status.PASS, "128 CPUs"),
        (CPUS, {"count": 256}, Status.FAIL, "128 CPUs are online instead of 256"),
        (CPUS, {"count": 64}, Status.FAIL, "instead of 64"),
        (CPUS, {"model": "EPYC 9654"}, Status.FAIL, "the processor is AMD EPYC 7763"),
        (Cpus((), 128), {"model": "EPYC"}, Status.UNKNOWN, "does not name"),
        (Cpus((), 128), {}, Status.PASS, "does not scale the clock"),
        (Cpus((), 128, ("performance", "powersave")), {}, Status.FAIL, "the governor powersave"),
        (Cpus((), 128, ("powersave",)), {"governors": ()}, Status.PASS, "governor: powersave"),
    ],
)
def test_cpu(cpus, parameters, status, words):
    judgement = cpu.judge(cpus, cpu.Parameters(**parameters))

    assert (judgement.status, words in judgement.reason) == (status, True), judgement.reason


def test_governors_are_read_from_every_cpu(tmp_path):
    for index, governor in enumerate(("performance", "powersave", "performance")):
        directory = tmp_path / f"cpu{index}" / "cpufreq"
        directory.mkdir(parents=True)
        (directory / "scaling_governor").write_text(governor + "\n", encoding="ascii")

    assert cpu.read_governors(tmp_path) == ("performance", "powersave")
    assert cpu.read_governors(tmp_path / "none") == ()


@given(st.booleans(), st.floats(allow_nan=True), st.floats(0.001, 100))
def test_a_clock_passes_exactly_if_it_is_kept_and_near(synchronised, offset_s, limit_s):
    judgement = clock.judge(Clock(synchronised, offset_s), clock.Parameters(limit_s))

    near = not math.isnan(offset_s) and abs(offset_s) <= limit_s
    assert judgement.status is (Status.PASS if synchronised and near else Status.FAIL)


def test_the_kernel_tells_of_the_clock():
    told = clock.from_kernel()

    assert told.source == "kernel"
    assert abs(told.offset_s) <= 0.5, "adjtimex(2): the kernel slews by at most half a second"


CHRONY = "C0A80101,192.168.1.1,3,1700000000.123456789,-0.000012345,-0.000001,0.00002,1.2,0.001,0.1,0.01,0.001,64.2,"


def test_chrony_tells_offset_and_leap_status(tmp_path):
    assert clock.parse_chrony(CHRONY + "Normal\n") == Clock(synchronised=True, offset_s=-0.000012345, source="chrony")
    assert not clock.parse_chrony(CHRONY + "Not synchronised\n").synchronised
    for garbage in ("", "506 Cannot talk to daemon\n", CHRONY.replace("-0.000012345", "x") + "Normal"):
        with pytest.raises(ParseError):
            clock.parse_chrony(garbage)
    answer = Result(("chronyc", "-c", "-n", "tracking"), 1, "506 Cannot talk to daemon\n", "")
    record = {"argv": answer.argv, "rc": 1, "stdout": answer.stdout, "stderr": "", "duration_s": 0.0}
    (tmp_path / "001-chronyc.json").write_text(json.dumps(record), encoding="utf-8")
    assert clock.from_chrony(ReplayRunner(tmp_path)) is None


NO_GPUS = Gpus(None, ())
STUCK = Process(7, "python", "D", 100.0)
ZOMBIE = Process(8, "python", "Z", 100.0)


def on_gpu(*strangers, expected=1):
    return Gpus(expected, (Reading("GPU 0", "0:0:0", value=tuple(strangers)),))


@pytest.mark.parametrize(
    ("observation", "parameters", "status", "words"),
    [
        (Observation((), NO_GPUS, 1000.0), {}, Status.PASS, "no process is stuck"),
        (Observation((STUCK,), NO_GPUS, 401.0), {}, Status.FAIL, "1 processes are stuck in the kernel, among them 7"),
        (Observation((STUCK,), NO_GPUS, 400.0), {}, Status.PASS, "no process"),
        (Observation((STUCK,), NO_GPUS, 401.0), {"max_stuck": 1}, Status.PASS, "no process"),
        (Observation((ZOMBIE,), NO_GPUS, 401.0), {"max_stuck": 1}, Status.FAIL, "a zombie, among them 8 (python)"),
        (Observation((ZOMBIE,), NO_GPUS, 401.0), {"max_zombies": 1}, Status.PASS, "no process"),
        (Observation((ZOMBIE,), NO_GPUS, 140.0), {"older_than_s": 30.0}, Status.FAIL, "zombie"),
        (Observation((), on_gpu(), 1.0), {}, Status.PASS, "no process"),
        (Observation((), on_gpu(Stranger(9, 1234)), 1.0), {}, Status.FAIL, "GPU 0: process 9 of user 1234"),
        (Observation((), on_gpu(Stranger(9, None)), 1.0), {}, Status.FAIL, "process 9 of another user"),
        (Observation((), on_gpu(Stranger(9, 1), expected=None), 1.0), {}, Status.PASS, "no process"),
        (Observation((), Gpus(1, (Reading("GPU 0", ""),)), 1.0), {}, Status.UNKNOWN, "not known"),
        (Observation((), Gpus(1, (), absent="no driver"), 1.0), {}, Status.UNKNOWN, "no driver"),
    ],
)
def test_processes(observation, parameters, status, words):
    judgement = processes.judge(observation, processes.Parameters(**parameters))

    assert (judgement.status, words in judgement.reason) == (status, True), judgement.reason


def test_lines_of_proc_stat_are_understood_whatever_the_name():
    rest = "1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 12300 0 0"

    assert processes.parse_stat(f"7 (a) D (b)) Z {rest}") == Process(
        7, "a) D (b)", "Z", 12300 / os.sysconf("SC_CLK_TCK")
    )
    assert processes.parse_stat(f"7 (python) S {rest}") is None
    assert processes.parse_stat(f"7 (kworker) D {rest.replace('4194560', str(0x00200040))}") is None


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


@pytest.fixture
def zombie():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    yield pid
    os.waitpid(pid, 0)


def test_a_zombie_of_this_machine_is_found(zombie):
    parameters = processes.Parameters(older_than_s=0.2, gpus=False, max_stuck=1000)
    while state_of(zombie) != "Z":
        time.sleep(0.01)

    observation = processes.observe(parameters, HERE)

    assert zombie in [process.pid for process in observation.unmoved if process.state == "Z"]
    assert processes.judge(observation, parameters).status is Status.FAIL


@pytest.fixture
def stuck():
    """A process that waits in state D: clone(2) with CLONE_VFORK holds the parent until its child has gone."""
    number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    pid = os.fork()
    if pid == 0:
        if ctypes.CDLL(None).syscall(number, CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0) == 0:
            time.sleep(30)
        os._exit(0)
    yield pid
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    os.kill(int(child), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_process_that_is_stuck_in_the_kernel_is_found(stuck):
    deadline = time.monotonic() + 1.5
    while state_of(stuck) != "D":
        assert time.monotonic() < deadline
        time.sleep(0.01)

    observation = processes.observe(processes.Parameters(gpus=False), HERE)

    assert stuck in [process.pid for process in observation.unmoved if process.state == "D"]
    assert processes.judge(observation, processes.Parameters(older_than_s=0.2)).status is Status.FAIL


def test_a_process_that_is_left_on_a_simulated_gpu_is_found(simulated_node):
    node = simulated_node()
    before = node.check("type: processes, max_zombies: 1000, max_stuck: 1000")
    node.fault(leftover_memory="2GiB")

    found = node.check("type: processes, max_zombies: 1000, max_stuck: 1000")

    assert (before["status"], before["reason"]) == ("pass", "no process is stuck or left over")
    assert (found["status"], found["reason"]) == ("fail", "GPU 1: process 4190001 of another user is left on it")
