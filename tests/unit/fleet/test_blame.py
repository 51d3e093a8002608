"""Blame and precision: who is named, how sure that is, and that what users do counts for nobody."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piolet.core.nouns import Status
from piolet.fleet import blame, deciding, policy, precision
from piolet.fleet.blame import Blame
from piolet.fleet.evidence import REVALIDATION, Evidence, Kind, Source, made_id
from piolet.fleet.ledger import Entry, State, Transition
from piolet.fleet.precision import What
from piolet.fleet.state import Fleet

DAY_NS = 86_400 * 10**9
NOW_NS = 1000 * DAY_NS
NODES = [f"n{number}" for number in range(1, 21)]


def end(
    job: str, nodes: str, state: str = "COMPLETED", *, days_ago: float = 1.0, hours: float = 12, **more
) -> Evidence:
    values = {"source": Source.SLURM, "job": job, "value": hours * 3600, "nodes": nodes} | more
    status = Status.PASS if state == "COMPLETED" else Status.FAIL
    ident = made_id("end", job, values["source"])
    return Evidence(ident, NOW_NS - round(days_ago * DAY_NS), Kind.JOB, state, status=status, **values)


def quiet_fleet() -> list[Evidence]:
    """A fleet of 20 nodes with 20 good jobs of half a day each."""
    return [end(f"{node}-{number}", node, days_ago=20) for node in NODES for number in range(20)]


def of(ranked: list[Blame], node: str) -> Blame:
    return next(one for one in ranked if one.node == node)


def xid(node: str, job: str = "", *, days_ago: float = 1.0) -> Evidence:
    return Evidence(made_id("x", node, job), NOW_NS - round(days_ago * DAY_NS), Kind.XID, "79", node, job=job)


@pytest.mark.parametrize(
    ("failure", "least", "most"),
    [
        (
            [end("a", "n1,n2", "NODE_FAIL"), Evidence("l", NOW_NS - DAY_NS, Kind.NODE, "NODE_FAIL", "n1", job="a")],
            0.9,
            1,
        ),
        ([end("a", "n1,n2", "FAILED"), xid("n1", "a")], 0.9, 1),
        ([end("a", "n1,n2", "FAILED"), xid("n1")], 0.9, 1),
        ([end("a", "n1,n2", "FAILED"), xid("n1", days_ago=2)], 0.2, 0.3),
        ([end("a", "n1,n2", "FAILED", culprit="n1", domain="infrastructure")], 0.8, 1),
        ([end("a", "n1,n2", "FAILED", culprit="n1")], 0.4, 0.5),
        ([end("a", "n1,n2", "FAILED")], 0.2, 0.3),
        ([end("a", "n1,n2", "FAILED", culprit="n1", domain="workload")], 0, 0),
        ([end("a", "n1,n2", "TIMEOUT")], 0, 0),
        ([end("a", "n1,n2", "CANCELLED")], 0, 0),
        ([end("a", "n1,n2", "NODE_FAIL", days_ago=40)], 0, 0),
    ],
    ids=[
        "lost",
        "Xid in the job",
        "Xid at the time",
        "Xid long before",
        "first rank, hardware",
        "first rank",
        "nothing",
        "the program's doing",
        "time limit",
        "cancelled",
        "long ago",
    ],
)
def test_a_failure_is_shared_out_by_what_points_at_a_node(failure, least, most) -> None:
    found = of(blame.ranking([*quiet_fleet(), *failure], NOW_NS), "n1")
    assert least <= found.failures <= most


def test_what_a_logbook_and_slurm_tell_of_a_job_is_one_failure() -> None:
    told = [
        end("a", "n1,n2", "NODE_FAIL"),
        end("a", "n1,n2", "FAILED", source=Source.LOGBOOK, culprit="n1", domain="infrastructure"),
    ]
    ranked = blame.ranking([*quiet_fleet(), *told], NOW_NS)
    assert sum(one.failures for one in ranked) == pytest.approx(1)
    assert sum(one.days for one in ranked) == pytest.approx(200 + 1)


def test_a_node_that_fails_with_ever_other_peers_is_the_lemon_although_nothing_names_it() -> None:
    failures = [end(f"f{place}", f"n1,{peer}", "FAILED") for place, peer in enumerate(NODES[1:9])]
    ranked = blame.ranking([*quiet_fleet(), *failures], NOW_NS)
    assert ranked[0].node == "n1"
    assert ranked[0].lemon > 0.7
    assert ranked[1].lemon < 0.5
    assert ranked[0].low < ranked[0].rate < ranked[0].high


def test_a_node_with_few_jobs_has_a_wide_interval() -> None:
    known = [*quiet_fleet(), end("new", "n99", "NODE_FAIL", hours=1)]
    ranked = blame.ranking(known, NOW_NS)
    new, old = of(ranked, "n99"), of(ranked, "n1")
    assert new.high - new.low > 2 * (old.high - old.low)


ends = st.lists(
    st.tuples(
        st.lists(st.sampled_from(NODES[:6]), min_size=1, max_size=4, unique=True),
        st.sampled_from(["COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT"]),
        st.sampled_from(["", "n1", "n2"]),
        st.floats(0, 100),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(ends)
def test_shares_add_up_and_every_figure_is_bounded(jobs) -> None:
    known = [
        end(str(number), ",".join(nodes), state, culprit=culprit, hours=hours)
        for number, (nodes, state, culprit, hours) in enumerate(jobs)
    ]
    ranked = blame.ranking(known, NOW_NS)
    assert (
        sum(one.failures for one in ranked) <= sum(state in {"FAILED", "NODE_FAIL"} for _, state, _, _ in jobs) + 1e-9
    )
    assert all(0 <= one.lemon <= 1 and 0 <= one.low <= one.high for one in ranked)
    again = {one.node: one.rate for one in blame.ranking(reversed(known), NOW_NS)}
    assert again == pytest.approx({one.node: one.rate for one in ranked})


def test_lemons_are_told_once_a_day_and_wait_for_an_approval() -> None:
    sure = Blame("n1", 9.0, 10.0, 900.0, 500.0, 1300.0, 0.97)
    fleet, rules = Fleet(), policy.load()
    for later_ns in (0, 1000, DAY_NS):
        told = blame.lemons([sure, Blame("n2", 0, 1, 0, 0, 1, 0.1)], NOW_NS + later_ns)
        deciding.learn(fleet, told, rules, NOW_NS + later_ns, 40)
    assert len(fleet.node("n1").evidence) == 2
    assert fleet.node("n1").state is State.SUSPECT
    assert "n2" not in fleet.nodes


def history(*contents) -> list[Entry]:
    fleet, rules = Fleet(), policy.load()
    written: list[Entry] = []
    for one in contents:
        if isinstance(one, Evidence):
            written += deciding.learn(fleet, [one], rules, one.time_ns, 40)
        else:
            written += deciding.add(fleet, [one], NOW_NS)
    return written


def revalidated(node: str, status: Status, days_ago: float) -> Evidence:
    at_ns = NOW_NS - round(days_ago * DAY_NS)
    return Evidence(made_id("r", node), at_ns, Kind.CHECK, REVALIDATION, node, status=status, source=Source.SLURM)


LOST = Evidence("lost", NOW_NS - 2 * DAY_NS, Kind.NODE, "NODE_FAIL", "n1", source=Source.SLURM)


@pytest.mark.parametrize(
    ("then", "right", "wrong"),
    [
        ([LOST], 1, 0),
        ([revalidated("n1", Status.FAIL, 2)], 1, 0),
        ([revalidated("n1", Status.PASS, 2)], 0, 1),
        ([revalidated("n1", Status.PASS, 3), LOST], 0, 1),
        ([revalidated("n1", Status.UNKNOWN, 2)], 0, 0),
        ([], 0, 0),
        ([end("j", "n1", days_ago=2)], 0, 0),
        ([Transition("n1", State.DRAINED, State.RMA, "x")], 1, 0),
    ],
    ids=["lost", "vetting failed", "passed", "passed, then lost", "unknown", "nothing yet", "too early", "replaced"],
)
def test_what_happens_next_says_whether_a_warning_was_right(then, right, wrong) -> None:
    found = precision.rows(history(xid("n1", days_ago=4), *then), NOW_NS)
    row = next(one for one in found if one.name == "xid-fatal")
    check = next(one for one in found if (one.what, one.name) == (What.CHECK, "xid:79"))
    assert (row.warned, row.right, row.wrong) == (1, right, wrong) == (check.warned, check.right, check.wrong)
    assert row.low <= (1.0 if row.precision is None else row.precision) <= row.high


def test_a_week_of_good_jobs_says_that_a_warning_was_wrong() -> None:
    found = precision.rows(history(xid("n1", days_ago=9), end("j", "n1", days_ago=5)), NOW_NS)
    assert {(row.right, row.wrong) for row in found} == {(0, 1)}


def test_recall_is_the_share_of_failures_that_were_warned_of() -> None:
    unwarned = Evidence("lost2", NOW_NS - DAY_NS, Kind.NODE, "NODE_FAIL", "n2", source=Source.SLURM)
    found = precision.rows(history(xid("n1", days_ago=4), LOST, unwarned), NOW_NS)
    assert next(row.recall for row in found if row.name == "xid:79") == 0.5
    assert next(row.recall for row in found if row.name == "node-lost") == 0.0
