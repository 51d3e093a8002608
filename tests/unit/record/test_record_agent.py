"""The agent as a whole: real processes, real signals, the simulator's NVML."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from piolet.lab import gpus
from piolet.logbook import records, segments
from piolet.logbook.layout import Logbook, create
from piolet.record import agent_argv

Rows = Callable[[Logbook, str], list[tuple[Any, ...]]]


def _recorded(rows: Rows, logbook: Logbook, family: str = "gpu") -> int:
    return int(rows(logbook, f"SELECT count(*) FROM {family}")[0][0])  # noqa: S608 - a known family


def _restarts(rows: Rows, logbook: Logbook) -> list[str]:
    found = rows(logbook, "SELECT message FROM events WHERE kind = 'agent' AND code = 'restart' ORDER BY time_ns")
    return [message for (message,) in found]


def _catches_sigterm(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"SigCgt:\s(\w+)", status)[0], 16) >> (signal.SIGTERM - 1) & 1


def _terminate(agent: subprocess.Popen[str]) -> str:
    agent.terminate()
    _, stderr = agent.communicate(timeout=60)
    assert agent.returncode == 0, stderr
    return stderr


def test_it_records_gpus_and_host_until_sigterm_and_merges(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any]
) -> None:
    gpus.hint(node.gpu_state, 0, "compute", ttl_s=60)
    agent = node.start(*agent_argv(logbook.path, node="n1"))
    wait_until(lambda: _recorded(rows, logbook) >= 10)
    assert _terminate(agent) == ""
    for family in ("gpu", "host", "events"):
        (segment,) = segments.list_segments(logbook.family(family))
        assert segment.node == "n1"
    found = rows(
        logbook,
        "SELECT gpu, any_value(uuid), max(sm_active_ratio), max(power_w), max(time_ns % 100000000) FROM gpu "
        "GROUP BY gpu ORDER BY gpu",
    )
    assert [(gpu, uuid) for gpu, uuid, *_ in found] == [(gpu.index, gpu.uuid) for gpu in node.gpus]
    assert found[0][2] > 0.5 > found[1][2]
    assert found[0][3] > found[1][3] > 0
    assert {offset for *_, offset in found} == {0}
    first = rows(logbook, "SELECT sm_active_ratio, gpu_util_ratio FROM gpu ORDER BY time_ns, gpu LIMIT 1")[0]
    assert first[0] is None
    assert first[1] is not None
    assert rows(logbook, "SELECT code FROM events WHERE kind = 'agent' ORDER BY time_ns") == [("start",), ("stop",)]


def test_only_the_gpus_of_the_step_are_recorded(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any]
) -> None:
    agent = node.agent(logbook, env={"SLURM_STEP_GPUS": "1", "CUDA_VISIBLE_DEVICES": "0"})
    wait_until(lambda: _recorded(rows, logbook))
    _terminate(agent)
    assert rows(logbook, "SELECT DISTINCT gpu, uuid FROM gpu") == [(1, node.gpus[1].uuid)]


def test_kill_9_of_the_sampler_costs_little_each_time(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any], children: Callable[[int], list[int]]
) -> None:
    agent = node.agent(logbook)
    for count in range(2):
        before = wait_until(lambda: _recorded(rows, logbook))
        (sampler,) = children(agent.pid)
        os.kill(sampler, signal.SIGKILL)
        wait_until(lambda count=count: len(_restarts(rows, logbook)) == count + 1)
        wait_until(lambda before=before: _recorded(rows, logbook) > before)
    _terminate(agent)
    assert _restarts(rows, logbook) == ["the sampler was killed by signal 9; it was started again"] * 2
    assert _longest_hole_s(rows, logbook) < 3


def test_kill_9_of_the_supervisor_costs_little(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any], children: Callable[[int], list[int]]
) -> None:
    agent = node.agent(logbook)
    wait_until(lambda: _recorded(rows, logbook))
    (sampler,) = children(agent.pid)
    agent.kill()
    agent.wait(timeout=60)
    wait_until(lambda: _restarts(rows, logbook))
    count = _recorded(rows, logbook)
    wait_until(lambda: _recorded(rows, logbook) > count)
    assert len(children(sampler)) == 1
    os.kill(sampler, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{sampler}").exists())
    assert _restarts(rows, logbook) == ["the supervisor was killed; the sampler took its place"]
    assert _longest_hole_s(rows, logbook) < 3
    assert len(segments.all_segments(logbook.family("gpu"))) == 1


def _longest_hole_s(rows: Rows, logbook: Logbook) -> float:
    times = [time for (time,) in rows(logbook, "SELECT DISTINCT time_ns FROM host ORDER BY 1")]
    return max(later - before for before, later in itertools.pairwise(times)) / 1e9


def test_one_agent_per_node_and_job(node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any]) -> None:
    agent = node.agent(logbook)
    wait_until(lambda: _recorded(rows, logbook))
    loser = node.agent(logbook)
    assert loser.communicate(timeout=60)[1] == "piolet: another agent records n1 already\n"
    assert loser.returncode == 0
    assert agent.poll() is None


def test_agents_of_other_jobs_and_nodes_do_not_meet(
    node: Any, logbook: Logbook, tmp_path: Path, rows: Rows, wait_until: Callable[..., Any]
) -> None:
    other = create(tmp_path / "books", "lab", "8")
    agents = [node.agent(logbook), node.agent(other), node.agent(logbook, name="n2")]
    wait_until(lambda: _recorded(rows, other) and {("n1",), ("n2",)} == set(rows(logbook, "SELECT node FROM host")))
    assert [agent.poll() for agent in agents] == [None] * 3


def test_an_xid_becomes_an_event_at_once_and_a_lost_gpu_leaves_nulls(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any]
) -> None:
    (old,) = gpus.parse_faults({"xid": 31})
    gpus.inject(node.gpu_state, 0, old)
    agent = node.agent(logbook)
    wait_until(lambda: _recorded(rows, logbook))
    (fault,) = gpus.parse_faults({"xid": 79})
    gpus.inject(node.gpu_state, 1, fault)
    injected_ns = time.time_ns()
    wait_until(lambda: rows(logbook, "SELECT 1 FROM events WHERE kind = 'gpu' AND code = 'lost'"))
    _terminate(agent)
    found = rows(
        logbook, "SELECT kind, code, gpu, uuid, severity, time_ns FROM events WHERE gpu IS NOT NULL ORDER BY kind"
    )
    assert [row[:5] for row in found] == [
        ("gpu", "lost", 1, node.gpus[1].uuid, "error"),
        ("xid", "79", 1, node.gpus[1].uuid, "error"),
    ]
    assert all(abs(row[5] - injected_ns) < 1e9 for row in found)
    last = rows(logbook, "SELECT gpu, power_w IS NULL FROM gpu ORDER BY time_ns DESC, gpu LIMIT 2")
    assert last == [(0, False), (1, True)]


def test_throttling_is_an_event_when_it_begins_and_ends(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any]
) -> None:
    agent = node.agent(logbook)
    wait_until(lambda: _recorded(rows, logbook))
    (fault,) = gpus.parse_faults({"throttle": "thermal"})
    gpus.inject(node.gpu_state, 0, fault)
    began = "SELECT code FROM events WHERE kind = 'throttle' AND severity = 'warning' AND gpu = 0"
    wait_until(lambda: rows(logbook, began))
    gpus.clear(node.gpu_state, 0)
    ended = "SELECT code FROM events WHERE kind = 'throttle' AND severity = 'info' AND gpu = 0"
    wait_until(lambda: rows(logbook, ended))
    _terminate(agent)
    assert {code for (code,) in rows(logbook, began)} == {code for (code,) in rows(logbook, ended)}


def test_without_a_driver_or_a_kernel_log_the_host_is_recorded_and_the_reasons_are(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    agent = node.agent(logbook, env={"LD_LIBRARY_PATH": ""}, kernel_log=tmp_path / "none")
    wait_until(lambda: _recorded(rows, logbook, "host") > 10)
    _terminate(agent)
    told = rows(logbook, "SELECT code, message FROM events WHERE kind = 'collector'")
    reasons = dict(message.split(": ", 1) for code, message in told if code == "unavailable")
    absent = dict(message.split(": ", 1) for code, message in told if code == "not-applicable")
    assert reasons["kernel_log"].startswith("cannot read the kernel log: No such file")
    assert absent["nvml"] == "the node has no NVIDIA driver"
    assert absent["cgroup"] == "the recorder is in no cgroup of a Slurm job"
    assert "host" not in reasons | absent
    assert _recorded(rows, logbook) == 0


def test_a_driver_that_is_missing_where_slurm_gave_gpus_is_a_failure(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any]
) -> None:
    agent = node.agent(logbook, env={"LD_LIBRARY_PATH": "", "SLURM_JOB_GPUS": "0,1"})
    wait_until(lambda: _recorded(rows, logbook, "host") > 1)
    _terminate(agent)
    ((message,),) = rows(logbook, "SELECT message FROM events WHERE code = 'unavailable' AND message LIKE 'nvml%'")
    assert message.startswith("nvml: libnvidia-ml.so.1 was not found")


def test_a_full_disk_never_stops_it_and_is_reported(
    node: Any, tmp_path: Path, rows: Rows, wait_until: Callable[..., Any]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True, timeout=60)
    try:
        logbook = create(small, "lab", "7")
        agent = node.agent(logbook)
        count = wait_until(lambda: _recorded(rows, logbook))
        (small / "filler").write_bytes(b"\0" * os.statvfs(small).f_bavail * os.statvfs(small).f_frsize)
        time.sleep(1.5)
        (small / "filler").unlink()
        wait_until(lambda: _recorded(rows, logbook) > count + 30)
        _terminate(agent)
        (message,) = rows(logbook, "SELECT message FROM events WHERE code = 'delayed'")[0]
        assert "No space left" in message
        assert message.endswith("0 rows dropped")
        assert _longest_hole_s(rows, logbook) < 0.5
    finally:
        node.end()
        subprocess.run(["umount", small], check=True, timeout=60)


def test_families_have_the_rates_that_were_asked_for_on_the_wall_clock(node: Any, rows: Any, wait_until: Any) -> None:
    node.record("sleep", "100", options=("--interval", "1", "--rate", "gpu=10,nic=4,proc=2"))
    wait_until(node.logbooks)
    (logbook,) = node.logbooks()
    wait_until(lambda: rows(logbook, "SELECT count(DISTINCT time_ns) > 15 FROM gpu")[0][0])
    wait_until(lambda: rows(logbook, "SELECT count(DISTINCT time_ns) > 2 FROM proc")[0][0])
    job = records.read_job(logbook.job)
    assert (job.period_s("gpu"), job.period_s("proc"), job.period_s("host")) == (0.1, 0.5, 1.0)
    for family, hertz in {"gpu": 10, "nic": 4, "proc": 2, "host": 1}.items():
        late = f"SELECT count(*) FROM {family} WHERE time_ns % {10**9 // hertz} <> 0"  # noqa: S608 - our own names
        assert rows(logbook, late) == [(0,)]
    assert rows(logbook, "SELECT count(*) FROM gpu WHERE time_ns % 500000000 <> 0")[0][0] > 0
    assert rows(logbook, "SELECT count(DISTINCT time_ns) FROM inventory") == [(1,)], "at once, then each minute"


def test_an_agent_without_a_logbook_is_a_usage_error(node: Any, tmp_path: Path) -> None:
    missing = node.start(sys.executable, "-m", "piolet", "record", "--agent")
    assert "add --logbook" in missing.communicate(timeout=60)[1]
    wrong = node.start(sys.executable, "-m", "piolet", "record", "--agent", "--logbook", tmp_path, "--", "true")
    assert "an agent takes no program" in wrong.communicate(timeout=60)[1]
    absent = node.start(sys.executable, "-m", "piolet", "record", "--agent", "--logbook", tmp_path / "none")
    assert "there is no logbook to record into" in absent.communicate(timeout=60)[1]
    assert (missing.returncode, wrong.returncode, absent.returncode) == (2, 2, 2)
    assert not (tmp_path / "none").exists()


def test_one_that_stands_by_takes_the_place_of_a_killed_agent(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any], children: Callable[[int], list[int]]
) -> None:
    agent = node.agent(logbook)
    wait_until(lambda: _recorded(rows, logbook))
    second = node.agent(logbook, standby=True)
    time.sleep(0.3)
    assert children(second.pid) == []
    for pid in (*children(agent.pid), agent.pid):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _restarts(rows, logbook))
    assert _terminate(second) == ""
    assert _restarts(rows, logbook) == ["the agent was killed; the one that stood by took its place"]


def test_one_that_stands_by_ends_when_asked(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any]
) -> None:
    node.agent(logbook)
    wait_until(lambda: _recorded(rows, logbook))
    second = node.agent(logbook, standby=True)
    wait_until(lambda: _catches_sigterm(second.pid))
    assert _terminate(second) == ""


def test_an_agent_ends_with_the_process_that_started_it(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any], children: Callable[[int], list[int]]
) -> None:
    step = node.start("sh", "-c", '"$@" & wait', "sh", *agent_argv(logbook.path, node="n1"))
    wait_until(lambda: _recorded(rows, logbook))
    (agent,) = children(step.pid)
    step.kill()
    wait_until(lambda: not Path(f"/proc/{agent}").exists())
    assert rows(logbook, "SELECT code FROM events WHERE kind = 'agent' ORDER BY time_ns") == [("start",), ("stop",)]
    assert len(segments.all_segments(logbook.family("gpu"))) == 1
