"""`piolet record -- PROGRAM`: the program is what it would be without."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from piolet.logbook import records, segments
from piolet.record.program import Place, find_program, job_record, open_logbook, original_environment

TELL = """
import json, os, signal, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "pid": os.getpid(), "ppid": os.getppid(), "argv": sys.argv[1:], "cwd": os.getcwd(), "group": os.getpgrp(),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
    "ignored": status["SigIgn"].strip(), "blocked": status["SigBlk"].strip(), "caught": status["SigCgt"].strip(),
    "stdin": sys.stdin.read(), "env": dict(os.environ),
    "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
}))
sys.exit(7)
"""


def _told(process: subprocess.Popen[str], stdin: str) -> dict[str, Any]:
    stdout, stderr = process.communicate(stdin, timeout=60)
    assert process.returncode == 7, stderr
    told: dict[str, Any] = json.loads(stdout)
    return told


def _ended(logbook: Any) -> bool:
    return records.read_job(logbook.job).program_ended_ns is not None


def test_the_program_is_what_it_would_be_without_the_recorder(node: Any, wait_until: Callable[..., Any]) -> None:
    argv = [sys.executable, "-c", TELL, "two words", "a'b\"c$HOME", "--help", "-n", "", "ü"]
    env = {"LC_ALL": "", "LC_CTYPE": "", "LANG": "C", "ODD": "a=b\nc"}
    plain = node.start(*argv, stdin=subprocess.PIPE, env=env)
    alone = _told(plain, "in\n")
    process = node.record(*argv, stdin=subprocess.PIPE, env=env)
    recorded = _told(process, "in\n")
    assert recorded.pop("pid") == process.pid
    assert alone.pop("pid") == plain.pid
    assert recorded["env"].pop("PIOLET_METRICS").startswith("piolet-metrics/")
    assert recorded == alone
    (logbook,) = node.logbooks()
    wait_until(lambda: _ended(logbook))


def test_the_recording_spans_the_program_and_says_what_it_ran_on(
    node: Any, rows: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    process = node.record("sh", "-c", "sleep 1; exit 3")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3
    (logbook,) = node.logbooks()
    assert stderr == f"piolet: recording to {logbook.path}\n"
    wait_until(lambda: _ended(logbook))
    job = records.read_job(logbook.job)
    assert job.command == ("sh", "-c", "sleep 1; exit 3")
    assert job.cluster == "local"
    assert job.simulated == ("gpu",)
    assert [gpu for _, gpu in job.gpus] == list(node.gpus)
    assert job.program_started_ns is not None
    assert job.program_ended_ns is not None
    assert 0.9 < (job.program_ended_ns - job.program_started_ns) / 1e9 < 2
    assert len(segments.all_segments(logbook.family("gpu"))) == 1
    assert rows(logbook, "SELECT count(DISTINCT time_ns) FROM gpu")[0][0] >= 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_are_the_programs_own(node: Any, wait_until: Callable[..., Any], number: int) -> None:
    process = node.record("sh", "-c", "echo ready; exec sleep 30")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(timeout=60) == -number
    (logbook,) = node.logbooks()
    wait_until(lambda: _ended(logbook))


def test_the_agent_holds_no_pipe_open(node: Any) -> None:
    process = node.record("sh", "-c", "echo one; exec 1>&- 2>&-; exec sleep 60")
    assert process.stdout.read() == "one\n"
    assert process.poll() is None
    process.terminate()
    process.wait(timeout=60)


def test_a_broken_pipe_ends_the_program_as_it_would_alone(node: Any) -> None:
    process = node.record("sh", "-c", "while :; do echo y; done")
    assert process.stdout.readline() == "y\n"
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGPIPE


def test_a_second_program_of_the_job_joins_and_the_recording_ends_with_the_last(
    node: Any, wait_until: Callable[..., Any]
) -> None:
    slurm = {"SLURM_JOB_ID": "77", "SLURM_CLUSTER_NAME": "lab", "SLURMD_NODENAME": "n1"}
    joined = node.path / "joined"
    first = node.record("sh", "-c", f"until [ -e {joined} ]; do sleep 0.05; done", env=slurm | {"SLURM_PROCID": "0"})
    wait_until(node.logbooks)
    second = node.record("sh", "-c", f"touch {joined}; sleep 1.2", env=slurm | {"SLURM_PROCID": "1"})
    assert second.communicate(timeout=60)[1] == ""
    ended_ns = time.time_ns()
    first.wait(timeout=60)
    (logbook,) = node.logbooks()
    assert logbook.path.parts[-2:] == ("lab", "77")
    wait_until(lambda: _ended(logbook))
    job = records.read_job(logbook.job)
    assert abs((job.program_ended_ns or 0) - ended_ns) < 0.5e9
    assert [held.node for held in job.allocation] == ["n1"]


def test_an_unknown_command_exits_as_in_a_shell_and_leaves_nothing(node: Any) -> None:
    process = node.record("no-such-command-here", "--x")
    assert "no-such-command-here: command not found" in process.communicate(timeout=60)[1]
    assert process.returncode == 127
    plain = node.path / "text"
    plain.write_text("no program")
    process = node.record(plain)
    assert "is not an executable file" in process.communicate(timeout=60)[1]
    assert process.returncode == 126
    assert not (node.path / "root").exists()


def test_nothing_to_record_is_a_usage_error(node: Any) -> None:
    process = node.record()
    assert "there is no program to record" in process.communicate(timeout=60)[1]
    assert process.returncode == 2


def test_a_root_that_cannot_be_written_is_said_before_anything_starts(node: Any) -> None:
    (node.path / "root").write_text("a file")
    process = node.record("echo", "started")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3
    assert stdout == ""
    assert "cannot create the logbook" in stderr


def test_the_place_is_slurms_or_this_machine() -> None:
    alone = Place.of({}, "", "laptop.home.net", 10**18, 5)
    assert (alone.cluster, alone.node, alone.nodes, alone.first) == ("local", "laptop", ("laptop",), True)
    assert alone.job_id == "20010909T014640Z-5"
    slurm = {"SLURM_JOB_ID": "9", "SLURM_STEP_NODELIST": "n[1-3]", "SLURMD_NODENAME": "n2", "SLURM_PROCID": "4"}
    place = Place.of(slurm, "alps", "x", 0, 5)
    assert place == Place("alps", "9", "n2", ("n1", "n2", "n3"), first=False)


def test_a_logbook_of_the_same_job_is_joined(tmp_path: Path) -> None:
    place = Place("alps", "9", "n1", ("n1", "n2"), first=True)
    one, two = (job_record(place, [command], 1.0, {}, 5) for command in ("a", "b"))
    book, owns = open_logbook(place, tmp_path, None, one)
    assert owns
    assert open_logbook(place, tmp_path, None, two) == (book, False)
    assert open_logbook(place, tmp_path, book.path, two) == (book, False)
    other = Place("alps", "9", "n2", ("n1", "n2"), first=False)
    assert open_logbook(other, tmp_path, None, one) == (book, False)
    assert records.read_job(book.job).command == ("a",)


def test_programs_are_found_as_a_shell_does(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert find_program("tool", f"/nonexistent:{tmp_path}") == str(tool)
    assert find_program(str(tool), "") == str(tool)


def test_the_original_environment_is_what_this_process_was_given() -> None:
    environ = original_environment()
    given = Path("/proc/self/environ").read_bytes().split(b"\0")
    assert [b"=".join(pair) for pair in environ.items()] == [pair for pair in given if b"=" in pair]
