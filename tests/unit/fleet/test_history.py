from __future__ import annotations

import pytest

from piolet.core.errors import UsageError
from piolet.core.nouns import Status
from piolet.fleet import deciding, history, policy, views
from piolet.fleet.evidence import Evidence, Kind, Source, made_id
from piolet.fleet.ledger import Entry, Instruction, Order, State
from piolet.fleet.state import Fleet

MINUTE_NS = 60 * 10**9
SHIPPED = policy.load()


def check(code: str, node: str, minute: int, *, job: str = "1", status: Status = Status.FAIL) -> Evidence:
    time_ns = 10**18 + minute * MINUTE_NS
    return Evidence(made_id(code, node, minute), time_ns, Kind.CHECK, code, node, job=job, status=status)


@pytest.fixture
def told() -> tuple[Fleet, list[Entry]]:
    fleet = Fleet()
    seen = [
        check("dns", "n1", 0),
        check("dns", "n2", 8, job="2"),
        check("dns", "n3", 16, job="3"),
        check("dns", "n1", 60, job="4"),
        check("clock", "n1", 61, status=Status.PASS),
        Evidence("j", 10**18, Kind.JOB, "FAILED", nodes="n[1-2]", job="1", source=Source.SLURM),
    ]
    written = deciding.learn(fleet, seen, SHIPPED, 2 * 10**18, 40)
    written += deciding.add(fleet, [Instruction(Order.HOLD, "n1", "ann", "demo")], 2 * 10**18)
    return fleet, written


def test_failures_that_follow_one_another_are_one_incident_over_nodes(told) -> None:
    found = history.incidents(told[1], 10 * MINUTE_NS)
    assert [(one.cause, one.failures, one.nodes, one.jobs) for one in found] == [
        ("check:dns", 1, ("n1",), ("4",)),
        ("check:dns", 3, ("n1", "n2", "n3"), ("1", "2", "3")),
    ]
    assert found[1].rules == ("vetting-failed", "vetting-failed-again")
    assert found[1].ended_ns - found[1].began_ns == 16 * MINUTE_NS


@pytest.mark.parametrize(("minutes", "count"), [(7, 4), (8, 2), (44, 1)])
def test_the_silence_that_ends_an_incident_is_exact(told, minutes, count) -> None:
    assert len(history.incidents(told[1], minutes * MINUTE_NS)) == count


def test_the_order_of_entries_does_not_change_incidents(told) -> None:
    assert history.incidents(reversed(told[1]), 10 * MINUTE_NS) == history.incidents(told[1], 10 * MINUTE_NS)
    assert history.incidents([], MINUTE_NS) == []


def test_a_node_shows_what_was_seen_decided_done_and_how_its_jobs_ended(told) -> None:
    shown = history.of_node(*told, "n1")
    assert shown.state is State.SUSPECT
    assert [event.time_ns for event in shown.evidence] == [10**18 + at * MINUTE_NS for at in (0, 60, 61)]
    assert "n1: observed -> suspect" in shown.decisions[-1].what
    assert shown.actions[0].what == "ann ordered hold of n1: demo"
    assert ["slurm saw job:FAILED fail" in event.what for event in shown.jobs] == [True]
    assert history.of_node(*told, "n3").jobs == ()


def test_a_node_that_nothing_is_known_of_is_an_error_with_the_nearest_name(told) -> None:
    with pytest.raises(UsageError, match="nothing is known of n11"):
        history.of_node(*told, "n11")


def test_all_nodes_are_listed_with_the_failures_that_count(told) -> None:
    rows = views.nodes(told[0], SHIPPED, tuple(State))
    assert [(row.node, row.state, row.failures) for row in rows] == [
        ("n1", State.SUSPECT, 2),
        ("n2", State.OBSERVED, 1),
        ("n3", State.OBSERVED, 1),
    ]
