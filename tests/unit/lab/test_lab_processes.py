from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.run import SystemRunner
from piolet.lab import Network, Spec
from piolet.lab.network import choose_place
from piolet.lab.processes import DAEMON_MARKER, MARKER, daemons, end_members, members
from piolet.lab.status import NodeStatus, is_ready, parse_sinfo

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run(script: str, directory: Path, label: str = "") -> subprocess.Popen[bytes]:
        variables = {MARKER: str(directory)} | ({DAEMON_MARKER: label} if label else {})
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | variables, stdout=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP
# A child that has thrown its environment away, as a job's program has.
PARENT = "import subprocess; c = subprocess.Popen(['env', '-i', 'sh', '-c', 'echo ready; exec sleep 60']); c.wait()"


def test_members_are_found_by_their_marker_and_descent(start: Start, tmp_path: Path) -> None:
    mine = start(SLEEP, tmp_path / "mine", "slurmctld")
    parent = start(PARENT, tmp_path / "mine")
    other = start(SLEEP, tmp_path / "mine-too", "slurmctld")
    found = {process.pid for process in members(tmp_path / "mine")}
    assert {mine.pid, parent.pid} < found
    assert len(found) == 3
    assert other.pid not in found
    assert {label: process.pid for label, process in daemons(tmp_path / "mine").items()} == {"slurmctld": mine.pid}


def test_all_members_end_even_if_they_ignore_sigterm(start: Start, tmp_path: Path) -> None:
    deaf, parent, other = start(DEAF, tmp_path), start(PARENT, tmp_path), start(SLEEP, tmp_path / "x")
    end_members(tmp_path, timeout_s=10)
    assert deaf.wait(5) == parent.wait(5) == -signal.SIGKILL
    assert members(tmp_path) == []
    assert other.poll() is None


def test_this_process_is_never_a_member(tmp_path: Path, start: Start) -> None:
    script = (
        "import sys; from pathlib import Path; from piolet.lab.processes import end_members;"
        f"end_members(Path({str(tmp_path)!r}), 5); print('ready')"
    )
    assert start(script, tmp_path).wait(10) == 0


_words = st.text(st.characters(codec="utf-8", exclude_characters="|\n"), min_size=1, max_size=8)


@given(st.lists(st.tuples(_words, _words, st.text(alphabet="ab| ") | _words), max_size=4))
def test_sinfo_rows_round_trip(rows: list[tuple[str, str, str]]) -> None:
    text = "".join(f"{node}|{state}|{reason or 'none'}\n" for node, state, reason in rows)
    expected = tuple(NodeStatus(node, state, "" if reason == "none" else reason) for node, state, reason in rows)
    assert parse_sinfo(text) == expected


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        ("idle", True),
        ("mixed", True),
        ("drained", True),
        ("idle*", False),
        ("down", False),
        ("down*", False),
        ("unknown", False),
    ],
)
def test_a_node_is_ready_once_it_answers(state: str, ready: bool) -> None:  # noqa: FBT001 - a table
    assert is_ready(state) is ready


def test_places_never_overlap() -> None:
    spec = Spec(nodes=50, network=Network.NETNS)
    place = choose_place(spec, (), SystemRunner())
    assert place.subnet is not None
    assert place.subnet.prefixlen == 24
    assert 20000 <= place.slurmctld_port < place.slurmdbd_port < place.slurmd_port <= 32000 - 50
