"""What a job opens to others: listeners, services without a password, old torch, memory left on GPUs."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from piolet.cli.main import run_command
from piolet.core.errors import ParseError, UsageError
from piolet.core.nouns import Status
from piolet.guard.finding import Scan
from piolet.guard.job import endpoints, processes, scan
from piolet.guard.job.gpus import Leftover
from piolet.guard.job.processes import Process
from piolet.guard.policy import Policy, judge
from piolet.launch import guard_check
from piolet.tools import sockets
from piolet.tools.sockets import Listener

TODAY = dt.date(2026, 1, 1)
SERVER = Path(__file__).parents[2] / "support/open_server.py"
ANY, LOOP, FAR = ip_address("0.0.0.0"), ip_address("127.0.0.1"), ip_address("10.1.2.3")  # noqa: S104 - what is looked for
_REST = "00000000:00000000 00:00000000 00000000  1000        0"
TABLE = f"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A {_REST} 41 1
   1: 0302010A:C350 0100000A:1F90 01 {_REST} 42 1
"""
_NOBODY = f"{'0' * 32}:0000"
TABLE_6 = f"""\
  sl  local_address                         remote_address st
   0: 00000000000000000000000001000000:22B8 {_NOBODY} 0A {_REST} 43 1
   1: 0000000000000000FFFF00000100007F:22B9 {_NOBODY} 0A {_REST} 44 1
"""


def rules_of(found: Scan) -> set[str]:
    return {each.rule for each in found.risks}


def scanned(
    *listeners: Listener, declared: tuple[int, ...] = (), ask: scan.Asker = lambda *_: (), **more: object
) -> Scan:
    return scan.scan_job([Process(7, "python", listeners, **more)], (), declared, "node1", ask)


def test_the_kernels_tables_tell_who_listens_where():
    assert sockets.parse(TABLE) == (Listener(LOOP, 8080, 41),)
    six, mapped = sockets.parse(TABLE_6)
    assert (str(six.address), six.port, six.local) == ("::1", 8888, True)
    assert (mapped.port, mapped.local) == (8889, True)
    with pytest.raises(ParseError):
        sockets.parse("head\nnonsense")


def test_a_listener_of_this_very_process_is_found():
    with closing(socket.create_server(("127.0.0.1", 0))) as own:
        port = own.getsockname()[1]
        held = set(sockets.inodes(Path("/proc/self")))
        mine = [each for each in sockets.listeners(Path("/proc/self")) if each.inode in held]

    assert port in {each.port for each in mine}


def test_what_others_reach_must_be_declared():
    assert rules_of(scanned(Listener(ANY, 8000, 1))) == {"job/undeclared-listener"}
    assert rules_of(scanned(Listener(FAR, 40000, 1))) == {"job/undeclared-listener"}
    assert rules_of(scanned(Listener(ANY, 8000, 1), declared=(8000,))) == set()
    assert rules_of(scanned(Listener(LOOP, 8000, 1))) == set(), "no other node reaches it"


def test_only_ports_where_a_stranger_does_no_harm_are_asked():
    asked: list[int] = []

    def ask(_: str, port: int) -> tuple[()]:
        asked.append(port)
        return ()

    scanned(
        Listener(ANY, 8000, 1), Listener(ANY, 29500, 2), Listener(FAR, 41000, 3), Listener(LOOP, 42000, 4),
        declared=(42000,), ask=ask, meeting_port=29500,
    )  # fmt: skip

    assert asked == [8000, 42000]


def test_a_network_of_its_own_is_unchecked_and_never_clean():
    verdict = judge(scanned(Listener(ANY, 8000, 1), apart=True), Policy(), TODAY)

    assert verdict.exit_status == 3


@pytest.mark.parametrize(
    ("version", "found"), [("2.5.1+cu124", True), ("2.6.0", False), ("2.13.0+cpu", False), ("local", True), ("", False)]
)
def test_a_torch_that_trusts_pickles_is_found(version, found):
    assert (rules_of(scanned(torch=version)) == {"job/old-torch"}) is found


def test_the_torch_of_a_process_is_read_from_the_files_that_it_has_mapped(tmp_path):
    assert processes.loaded_torch(tmp_path) == ""
    (tmp_path / "maps").write_text(
        "7f00-7f01 r-xp 0 08:01 5 /opt/venv/lib/python3.11/site-packages/torch/lib/libtorch_cpu.so\n"
    )
    assert processes.loaded_torch(tmp_path) == "", "the files are gone"
    version = tmp_path / "root/opt/venv/lib/python3.11/site-packages/torch/version.py"
    version.parent.mkdir(parents=True)
    version.write_text("from typing import Optional\n__version__ = '2.5.1+cu124'\n")
    assert processes.loaded_torch(tmp_path) == "2.5.1+cu124"


def test_memory_that_others_left_is_told():
    found = scan.scan_job((), [Leftover("GPU 2", 20 << 30, 80 << 30)], (), "node1")

    assert rules_of(found) == {"job/gpu-memory"}
    assert found.risks[0].reason == "21 GB of 86 GB are in use, and not by this job"


def test_ports_are_read_strictly():
    assert scan.ports(["8000", "10-12"]) == {8000, 10, 11, 12}
    for wrong in ("0", "70000", "9-8", "http", "-1"):
        with pytest.raises(UsageError):
            scan.ports([wrong])


@pytest.fixture
def server() -> Iterator[Callable]:
    """Start a server in one of the modes; gives process id and port."""
    started = []

    def start(mode: str) -> tuple[int, int]:
        process = subprocess.Popen([sys.executable, SERVER, "0", mode], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process.pid, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_server_that_answers_anybody_fails_and_one_with_a_key_for_a_part_warns(server, capsys):
    for mode, rule, status in (("open", "job/open-endpoint", 1), ("key", "job/half-guarded", 0)):
        pid, port = server(mode)
        assert run_command(["guard", "job", "--pid", str(pid), "--declare", str(port), "--format", "json"]) == status
        said = json.loads(capsys.readouterr().out)
        assert [each["rule"] for each in said["risks"]] == [rule]
        assert said["risks"][0]["inside"].endswith(str(pid))


def test_what_does_not_speak_http_is_no_service():
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
    assert list(endpoints.open_services("127.0.0.1", port)) == []


def test_a_process_and_its_children_are_scanned_and_nobody_elses():
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert {os.getpid(), child.pid} <= processes.below(os.getpid())
        assert child.pid not in processes.of_job("no-such-job", "node1")
        assert os.getpid() not in {each.pid for each in processes.look({os.getpid(), child.pid})}
    finally:
        child.kill()
        child.wait()
    with pytest.raises(UsageError, match="no such process"):
        processes.below(2**22 + 1)


def test_a_job_is_known_by_its_environment():
    child = subprocess.Popen(["/bin/sleep", "60"], env={"SLURM_JOB_ID": "424242", "SLURMD_NODENAME": "node1"})
    try:
        assert processes.of_job("424242", "node1") == {child.pid}
        assert processes.of_job("424242", "node2") == set()
    finally:
        child.kill()
        child.wait()


def test_outside_of_a_job_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    assert run_command(["guard", "job"]) == 2
    assert "run this on a node of the job, or give --pid PID" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("listener", "more", "status"),
    [
        (Listener(LOOP, 8000, 1), {}, Status.PASS),
        (Listener(ANY, 8000, 1), {}, Status.PASS),
        (Listener(ANY, 8000, 1), {"torch": "2.5.0"}, Status.FAIL),
        (Listener(ANY, 8000, 1), {"apart": True}, Status.UNKNOWN),
    ],
)
def test_vetting_takes_the_verdict(listener, more, status):
    verdict = judge(scanned(listener, **more), Policy(), TODAY)

    judgement = guard_check.judge(verdict, guard_check.Parameters())

    assert judgement.status is status
    assert judgement.reason


@pytest.mark.slow
@pytest.mark.parametrize(("access", "rules"), [(["--no-token"], ["job/open-endpoint"]), ([], [])])
def test_a_notebook_of_marimo_is_open_only_without_its_token(access, rules):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "marimo", "edit", "--headless", "--skip-update-check", "--port", str(port), *access]
    notebook = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(each.listeners for each in processes.look({notebook.pid})):
            assert notebook.poll() is None
        found = scan.scan_job(processes.look(processes.below(notebook.pid)), (), (port,), "node1")
    finally:
        notebook.terminate()
        notebook.wait()
    assert [each.rule for each in found.risks] == rules
