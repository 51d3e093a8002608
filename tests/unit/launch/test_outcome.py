"""Outcomes: the domain is what the evidence supports."""

import pytest

from piolet.core.errors import ConfigError, ToolTimeout
from piolet.core.nodeset import NodeSet
from piolet.launch import outcome
from piolet.launch.doom import Sign
from piolet.launch.program import Ended, Failure, parse_failure
from piolet.logbook.records import Domain, Outcome
from piolet.tools.slurm.job import Job
from piolet.tools.slurm.states import JobState


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
    assert outcome.of_stop(15, 5, state="CANCELLED").state == "CANCELLED"
    late = outcome.of_stop(15, 5, state="TIMEOUT")
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
        (b"srun: error: Node failure on node[2-3]", Failure("node2", None, "Node failure")),
        (b"loss 0.3 srun: error: node2: task 1: no", None),
        (b"srun: error: Unable to create step", None),
    ],
)
def test_srun_names_the_failed_task(line, expected):
    assert parse_failure(line) == expected


@pytest.mark.parametrize(
    ("state", "domain", "status"),
    [
        (JobState.COMPLETED, Domain.NONE, 0),
        (JobState.TIMEOUT, Domain.USER, 137),
        (JobState.CANCELLED, Domain.USER, 137),
        (JobState.PREEMPTED, Domain.NONE, 137),
        (JobState.OUT_OF_MEMORY, Domain.WORKLOAD, 137),
        (JobState.NODE_FAIL, Domain.INFRASTRUCTURE, 137),
        (JobState.BOOT_FAIL, Domain.INFRASTRUCTURE, 137),
        (JobState.FAILED, Domain.UNKNOWN, 137),
    ],
)
def test_a_job_that_left_no_outcome_gets_one_from_slurm(state, domain, status):
    ended = outcome.of_job(Job(1, "1", state, nodes=NodeSet("n[1-2]"), signal=9, end_ns=7), 5)

    assert (ended.state, ended.domain, ended.exit_status, ended.ended_ns) == (str(state), domain, status, 7)
    assert "n[1-2]" in ended.reason


def test_a_job_that_never_began_says_so():
    ended = outcome.of_job(Job(1, "1", JobState.CANCELLED, exit_code=0, signal=0), 5)

    assert (ended.exit_status, ended.ended_ns) == (3, 5)
    assert "before it began" in ended.reason


def test_only_nodes_that_are_to_blame_are_left_out_of_another_attempt():
    def bad(state, domain, node="", *, began):
        return outcome.bad_nodes(Outcome(state, 1, domain=domain, first_failing_node=node), ("n1", "n2"), began=began)

    assert bad("FAILED", Domain.INFRASTRUCTURE, began=False) == ("n1", "n2")
    assert bad("NODE_FAIL", Domain.INFRASTRUCTURE, "n3", began=True) == ("n3",)
    assert bad("NODE_FAIL", Domain.INFRASTRUCTURE, began=True) == ()
    for domain in (Domain.WORKLOAD, Domain.USER, Domain.UNKNOWN, Domain.NONE):
        assert bad("FAILED", domain, "n3", began=True) == ()
        assert bad("FAILED", domain, began=False) == ()


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL", "TIMEOUT", "OUT_OF_MEMORY"])
def test_a_stop_keeps_slurms_word_for_it(state):
    assert outcome.of_stop(15, 5, state=state).state == state


def test_a_stop_in_a_state_that_is_no_end_is_a_cancel():
    assert outcome.of_stop(15, 5, state="RUNNING").state == "CANCELLED"


def test_a_failure_that_follows_a_fatal_xid_is_not_the_workloads():
    failed = Ended(1, Failure("node3", 2, "Exited with exit code 1"))
    found = outcome.of_program(failed, 5, Sign("xid", "Xid 79 (gone) on node2:1", "node2"))

    assert (found.exit_status, found.domain, found.first_failing_node) == (1, Domain.INFRASTRUCTURE, "node3")
    assert found.reason == "rank 2 on node3: Exited with exit code 1, after Xid 79 (gone) on node2:1"
    assert outcome.bad_nodes(found, (), began=True) == ("node2",)


def test_a_program_that_ended_well_is_not_failed_by_an_xid():
    assert outcome.of_program(Ended(0), 5, Sign("xid", "Xid 79", "node2")).state == "COMPLETED"


@pytest.mark.parametrize(
    ("sign", "domain", "bad"),
    [("xid", Domain.INFRASTRUCTURE, ("node2",)), ("hang", Domain.UNKNOWN, ()), ("heartbeat", Domain.UNKNOWN, ())],
)
def test_only_an_xid_is_held_against_the_node_that_a_sign_names(sign, domain, bad):
    found = outcome.of_program(Ended(143, doomed=Sign(sign, "what", "node2")), 5)

    assert (found.domain, found.first_failing_node, found.aborted_on) == (domain, "node2", sign)
    assert outcome.bad_nodes(found, (), began=True) == bad
