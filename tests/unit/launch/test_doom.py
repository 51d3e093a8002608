"""Signs in a program's output that it will come to nothing."""

import pytest

from piolet.core.errors import UsageError
from piolet.launch import outcome
from piolet.launch.doom import Doom, Sign
from piolet.launch.program import Ended
from piolet.launch.request import RunRequest, check
from piolet.logbook.records import Domain


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def doomed(*losses, signs=("nan", "stall"), step_s=1.0, silence_s=0.0):
    """What is said after these losses, one every `step_s`, and a silence."""
    clock = Clock()
    doom = Doom(signs, clock)
    for step, loss in enumerate(losses):
        clock.now_s += step_s
        doom.look(f"step {step} loss {loss}".encode())
    clock.now_s += silence_s
    sign = doom.reason()
    return sign.name if sign else ""


@pytest.mark.parametrize(
    ("losses", "sign"),
    [
        (["nan"] * 3, "nan"),
        (["inf", "nan", "inf"], "nan"),
        (["nan", "nan", "0.5", "nan", "nan"], ""),
        (["0.5"] * 9, ""),
        ([], ""),
    ],
)
def test_only_a_loss_that_stays_no_number_is_a_sign(losses, sign):
    assert doomed(*losses) == sign


@pytest.mark.parametrize(
    ("steps", "step_s", "silence_s", "sign"),
    [
        (9, 1, 599, ""),
        (9, 1, 601, "stall"),
        (4, 1, 9999, ""),
        (0, 1, 9999, ""),
        (9, 120, 1199, ""),
        (9, 120, 1201, "stall"),
    ],
)
def test_a_stall_is_far_longer_than_any_step(steps, step_s, silence_s, sign):
    assert doomed(*["0.5"] * steps, step_s=step_s, silence_s=silence_s) == sign


def test_only_what_was_asked_for_is_a_sign():
    assert doomed(*["nan"] * 9, signs=("stall",)) == ""
    assert doomed(*["0.5"] * 9, signs=("nan",), silence_s=9999) == ""


def test_lines_of_any_other_kind_are_no_progress():
    doom = Doom(("nan", "stall"), Clock())
    for line in (b"loss nan", b"\xff\xfe", b"", b"the loss of life"):
        doom.look(line)

    assert doom.reason() is None


@pytest.mark.parametrize(("sign", "domain"), [("nan", Domain.WORKLOAD), ("stall", Domain.UNKNOWN)])
def test_the_outcome_of_a_program_that_was_ended_early(sign, domain):
    found = outcome.of_program(Ended(0, doomed=Sign(sign, "why")), 5)

    assert (found.state, found.exit_status, found.domain, found.aborted_on) == ("FAILED", 143, domain, sign)
    assert outcome.bad_nodes(found, ("n1",), began=True) == ()


def test_an_unknown_sign_is_refused():
    with pytest.raises(UsageError, match="nna") as caught:
        check(RunRequest(("x",), abort_on=("nna",)))

    assert "nan" in caught.value.remedy


@pytest.mark.parametrize("asked", [{"abort_on": ("xid",)}, {"abort_on": ("nan", "hang")}, {"heartbeat_s": 60.0}])
def test_signs_of_the_recording_need_one(asked):
    with pytest.raises(UsageError, match="--record"):
        check(RunRequest(("x",), **asked))

    assert check(RunRequest(("x",), record=True, **asked))
