"""Listening to a step: what is waited for, and what is not."""

from __future__ import annotations

import sys
import time
from itertools import count

from piolet.core.nodeset import NodeSet
from piolet.core.run import PIPE, Result, SystemRunner, end
from piolet.vet import listening
from piolet.vet.step import begun, silences, tasks_output

ANSWER = '{"piolet_vet":1,"node":"n1"}'


def heard(script: str, wanted: int, timeout_s: float, clock):
    step = SystemRunner().start([sys.executable, "-uc", script], stdout=PIPE, stderr=PIPE, new_session=True)
    try:
        return listening.listen(step, wanted, timeout_s, clock)
    finally:
        end(step, 0)
        step.stdout.close()
        step.stderr.close()


def fast():
    """A clock on which every look takes a second, so that no test waits."""
    ticks = count()
    return lambda: float(next(ticks))


def test_a_step_is_heard_to_its_end():
    script = f"import sys; print('piolet-vet begins on n1'); print('{ANSWER}'); print('why', file=sys.stderr)"

    found = heard(script, 1, 60, time.monotonic)

    assert not found.gave_up
    assert ANSWER in found.stdout
    assert found.stderr == "why\n"


def test_a_node_that_never_begins_is_given_up_once_the_others_have_answered():
    script = f"import time\nfor n in 'ab': print('piolet-vet begins on', n); print('{ANSWER}')\ntime.sleep(60)"

    found = heard(script, 3, 1e9, fast())

    assert found.gave_up
    assert found.stdout.count(ANSWER) == 2


def test_a_node_that_has_begun_is_waited_for_until_the_time_is_over():
    counts = listening._Counts(3, 0.0)
    counts.hear(f"piolet-vet begins on n1\npiolet-vet begins on n2\n{ANSWER}", 1.0)

    assert not counts.give_up(1000.0)

    counts.hear(f"piolet-vet begins on n1\npiolet-vet begins on n2\n{ANSWER}{ANSWER}", 1001.0)
    assert counts.give_up(1001.0)


def test_nobody_is_given_up_before_most_have_begun():
    counts = listening._Counts(4, 0.0)
    counts.hear(f"piolet-vet begins on n1\n{ANSWER}", 1.0)

    assert not counts.give_up(1000.0)


def test_a_node_three_times_as_slow_still_begins_in_time():
    counts = listening._Counts(4, 0.0)
    counts.hear(f"piolet-vet begins on n\n{ANSWER}" * 3, 20.0)

    assert not counts.give_up(60.0)
    assert counts.give_up(81.0)


def test_the_time_of_the_stage_ends_it():
    assert heard("import time; time.sleep(60)", 1, 30, fast()).gave_up


def test_what_has_begun_and_what_has_not_is_told_apart():
    stdout = "0: piolet-vet begins on n1\n1: piolet-vet begins on n2\n0: " + ANSWER + "\n"

    assert begun(stdout) == NodeSet("n[1-2]")
    assert silences(Result(("srun",), 124, stdout, ""), NodeSet("n[1-3]")) == {
        "n1": "not in time",
        "n2": "not in time",
        "n3": "never began",
    }
    assert ANSWER in tasks_output(stdout)[0]
