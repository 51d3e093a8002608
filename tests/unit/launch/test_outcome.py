"""Outcomes: the domain is what the evidence supports."""

import pytest

from piolet.core.errors import ConfigError, ToolTimeout
from piolet.launch import outcome
from piolet.launch.program import Ended, Failure, parse_failure
from piolet.logbook.records import Domain


def test_success_has_no_domain_and_no_next_action():
    ended = outcome.of_program(Ended(0), 5)
    assert (ended.state, ended.exit_status, ended.domain, ended.next_action) == ("COMPLETED", 0, Domain.NONE, "")


@pytest.mark.parametrize(
    ("status", "what", "state", "domain"),
    [
        (3, "Exited with exit code 3", "FAILED", Domain.WORKLOAD),
        (139, "Segmentation fault", "FAILED", Domain.WORKLOAD),
        (137, "Killed", "FAILED", Domain.UNKNOWN),
        (137, "Out Of Memory", "OUT_OF_MEMORY", Domain.WORKLOAD),
        (1, "Node failure", "NODE_FAIL", Domain.INFRASTRUCTURE),
    ],
)
def test_the_first_failing_task_tells_the_domain(status, what, state, domain):
    ended = outcome.of_program(Ended(status, Failure("node3", 2, what)), 5)
    assert (ended.state, ended.domain, ended.exit_status) == (state, domain, status)
    assert (ended.first_failing_node, ended.first_failing_rank) == ("node3", 2)
    assert "rank 2 on node3" in ended.reason
    assert ended.next_action


def test_a_failure_that_nobody_explains_is_unknown():
    ended = outcome.of_program(Ended(9), 5)
    assert (ended.state, ended.domain, ended.first_failing_rank) == ("FAILED", Domain.UNKNOWN, None)


def test_a_stop_is_a_cancel_or_a_timeout():
    assert outcome.of_stop(15, 5, timed_out=False).state == "CANCELLED"
    late = outcome.of_stop(15, 5, timed_out=True)
    assert (late.state, late.exit_status) == ("TIMEOUT", 143)
    assert "--time" in late.next_action


def test_an_error_of_the_user_is_not_blamed_on_infrastructure():
    wrong = ConfigError("unknown key", path="x.toml", remedy="correct it")
    assert outcome.of_error(wrong, 5).domain is Domain.USER
    silent = ToolTimeout(["srun"], 5)
    assert outcome.of_error(silent, 5).domain is Domain.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"srun: error: node2: task 1: Exited with exit code 3", Failure("node2", 1, "Exited with exit code 3")),
        (b"srun: error: node1: tasks 0-3: Killed", Failure("node1", 0, "Killed")),
        (
            b"srun: error: n1: tasks 2,5: Segmentation fault (core dumped)\r",
            Failure("n1", 2, "Segmentation fault (core dumped)"),
        ),
        (b"loss 0.3 srun: error: node2: task 1: no", None),
        (b"srun: error: Unable to create step", None),
    ],
)
def test_srun_names_the_failed_task(line, expected):
    assert parse_failure(line) == expected
