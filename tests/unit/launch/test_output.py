"""The program's output passes byte for byte and at once, and its steps are told to the recorder."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.run import SystemRunner
from piolet.launch.output import Steps, forward
from piolet.launch.program import run_step


def forwarded(chunks):
    """What comes out, and the lines that were looked at, for chunks that are written one by one."""
    source, writer = os.pipe()
    reader, target = os.pipe()
    lines = []
    thread = threading.Thread(target=forward, args=(os.fdopen(source, "rb"), target, lines.append))
    thread.start()
    for chunk in chunks:
        os.write(writer, chunk)
    os.close(writer)
    thread.join(timeout=5)
    os.close(target)
    with os.fdopen(reader, "rb") as output:
        return output.read(), lines


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20))
def test_every_byte_passes_and_whole_lines_are_seen(chunks):
    output, lines = forwarded(chunks)
    assert output == b"".join(chunks)
    assert lines == output.split(b"\n")[:-1]


def test_a_line_without_end_is_passed_but_not_looked_at():
    output, lines = forwarded([b"x" * 4000] * 10 + [b"\nshort\n"])
    assert len(output) == 40_007
    assert lines == [b"short"]


def test_output_passes_at_once():
    source, writer = os.pipe()
    reader, target = os.pipe()
    thread = threading.Thread(target=forward, args=(os.fdopen(source, "rb"), target, len))
    thread.start()
    os.write(writer, b"no newline yet")
    assert os.read(reader, 100) == b"no newline yet"
    os.close(writer)
    thread.join(timeout=5)
    os.close(reader)
    os.close(target)


def test_a_writer_learns_that_nobody_reads_any_more():
    reader, target = os.pipe()
    os.close(reader)
    yes = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    forward(yes.stdout, target, len)
    assert yes.wait(timeout=5) == -13  # SIGPIPE, as without us
    os.close(target)


@pytest.mark.parametrize("look", [None, len])
def test_a_step_says_what_it_says_and_ends_as_it_ends(look, capfd):
    program = "import os, sys; os.write(1, bytes(range(256)) * 1000); os.write(2, b'to err'); sys.exit(5)"
    with capfd.disabled():
        done = subprocess.run(
            [sys.executable, "-c", STEP, "look" if look else "", sys.executable, "-c", program],
            capture_output=True,
            check=False,
            timeout=10,
        )
    assert (done.returncode, done.stdout, done.stderr) == (5, bytes(range(256)) * 1000, b"to err")


STEP = """
import sys
from piolet.core.run import SystemRunner
from piolet.launch.program import run_step
sys.exit(run_step(sys.argv[2:], SystemRunner(), len if sys.argv[1] else None).status)
"""


def test_a_program_that_prints_wildly_is_looked_at_now_and_then(tmp_path):
    recorder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    recorder.bind(str(tmp_path / "recorder"))
    recorder.settimeout(0)
    look, told = Steps(str(tmp_path / "recorder")), 0
    for _ in range(2000):
        look(b"step 3 loss 0.25")
        with contextlib.suppress(BlockingIOError):
            told += bool(recorder.recv(2048))
    recorder.close()
    assert 500 <= told <= 1000


@pytest.mark.parametrize("redirection", ["", ">&2"])
def test_steps_that_are_printed_reach_the_recorder(redirection, tmp_path):
    recorder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    recorder.bind(str(tmp_path / "recorder"))
    recorder.settimeout(5)
    look = Steps(str(tmp_path / "recorder"))
    lines = "hello\\nstep 3 loss 0.25\\niter 4: loss 2.5, time 120.00ms, mfu 41.00%%\\n"
    run_step(["sh", "-c", f"printf '{lines}' {redirection}"], SystemRunner(), look)
    assert recorder.recv(2048) == b"source=output step=3 loss=0.25"
    assert recorder.recv(2048).split()[:3] == [b"source=output", b"step=4", b"loss=2.5"]
    recorder.close()
    began = time.monotonic()
    look(b"step 4 loss 0.25")
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (["node2: task 1: Exited with exit code 7", "node1: task 0: Terminated"], 7),
        (["node2: task 1: Segmentation fault (core dumped)", "node1: task 0: Killed"], 139),
        (["node2: task 1: Out Of Memory"], 143),
        (["Unable to create step"], 143),
        ([], 143),
    ],
)
def test_the_status_is_that_of_the_rank_that_failed_first(ends, status):
    lines = "".join(f"srun: error: {end}\n" for end in ends)
    assert run_step(["sh", "-c", 'printf %s "$1" >&2; exit 143', "sh", lines], SystemRunner()).status == status


def test_a_full_disk_does_not_stop_the_program() -> None:
    source, program = os.pipe()
    os.write(program, b"first\nsecond\n")
    os.close(program)
    lines: list[bytes] = []
    target = os.open("/dev/full", os.O_WRONLY)
    forward(os.fdopen(source, "rb"), target, lines.append)
    os.close(target)
    assert lines == [b"first", b"second"]
