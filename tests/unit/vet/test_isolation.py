"""Functions that hang, crash or shout, each in a process of its own."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from piolet.vet.isolation import Task, run_isolated


def boom() -> str:
    raise RuntimeError("first line\nthe driver said no")


def crash() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def leave() -> str:
    os._exit(0)


def shout() -> str:
    os.write(1, b"noise\n")
    os.write(2, b"more noise\n")
    return "quiet"


def hang() -> str:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    time.sleep(60)
    return "never"


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (boom, "RuntimeError: first line the driver said no"),
        (crash, "ended by signal 9"),
        (leave, "ended without an answer"),
        (lambda: sys.exit(4), "SystemExit: 4"),
    ],
)
def test_a_task_that_fails_says_why(function, error):
    [outcome] = run_isolated([Task("it", function, 5)])

    assert (outcome.name, outcome.text, outcome.error) == ("it", "", error)


def test_a_task_that_hangs_is_ended_and_keeps_nobody_waiting():
    started = time.monotonic()

    slow, quick = run_isolated([Task("slow", hang, 0.3), Task("quick", lambda: "here", 5)])

    assert time.monotonic() - started < 30  # the slow one would take a minute
    assert (quick.text, quick.error) == ("here", "")
    assert (slow.text, slow.error) == ("", "no answer within 0.3 s")
    assert 0.3 <= slow.duration_s < 1.0


def test_what_a_task_prints_reaches_no_stream_of_ours(capfd):
    [outcome] = run_isolated([Task("loud", shout, 5)])

    assert outcome.text == "quiet"
    assert capfd.readouterr() == ("", "")


def test_long_and_odd_texts_arrive_whole():
    text = "ä\udcff" * 200_000

    [outcome] = run_isolated([Task("long", lambda: text, 5)])

    assert outcome.text == text


def test_quick_tasks_share_a_process_and_answer_in_order():
    outcomes = run_isolated([Task(str(number), lambda: str(os.getpid()), 5) for number in range(3)])

    assert [outcome.name for outcome in outcomes] == ["0", "1", "2"]
    assert len({outcome.text for outcome in outcomes}) == 1


def test_those_behind_a_slow_task_run_at_once(tmp_path):
    """Each ends only when all three have begun."""

    def meet(name):
        (tmp_path / name).touch()
        while len(list(tmp_path.iterdir())) < 3:
            time.sleep(0.01)
        return name

    outcomes = run_isolated([Task(name, lambda name=name: meet(name), 60) for name in ("one", "two", "three")])

    assert [outcome.text for outcome in outcomes] == ["one", "two", "three"]


def test_a_task_apart_shares_no_process_and_those_behind_a_crash_still_run():
    pid = str(os.getpid())
    tasks = [Task("apart", lambda: str(os.getpid()), 5, apart=True), Task("crash", crash, 5)]
    tasks += [Task(name, lambda: str(os.getpid()), 5) for name in ("behind", "too")]

    apart, crashed, behind, too = run_isolated(tasks)

    assert len({pid, apart.text, behind.text, too.text}) == 4
    assert crashed.error == "ended by signal 9"


def test_no_task_leaves_a_process_behind():
    before = children()
    run_isolated([Task("hang", hang, 0.1), Task("fine", lambda: "", 5), Task("crash", crash, 5)])
    deadline = time.monotonic() + 60  # a busy machine may take a while to end a process that was killed
    while not children() <= before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children():
    """The children of this process that are alive."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {pid for pid in found if ") Z " not in Path(f"/proc/{pid}/stat").read_text()}
