from __future__ import annotations

import json
from pathlib import Path

import pytest
from fleet_service import FewNodes

from piolet.core.errors import ConfigError, PioletError, Refused, StorageError
from piolet.core.nouns import Status
from piolet.fleet import center, deciding, gathering, ledger, planning, policy, store, views
from piolet.fleet.evidence import Evidence, Kind, Source, made_id
from piolet.fleet.ledger import Instruction, Mode, Order, State, Transition
from piolet.fleet.planning import Seen
from piolet.fleet.rules import Independent, Per, Rule, matching
from piolet.fleet.state import Fleet

HOUR_NS = 3_600_000_000_000
START_NS = 1_000_000 * HOUR_NS
NODES = [Seen(f"n{number}", ("main",)) for number in range(1, 41)]
SHIPPED = policy.load()


def xid(code: str, node: str = "n1", *, hours: float = 0, job: str = "1", gpu: str = "GPU-a", **more) -> Evidence:
    values = {"source": Source.NODE, "gpu": gpu, "job": job} | more
    time_ns = START_NS + round(hours * HOUR_NS)
    return Evidence(made_id(code, node, hours, job, gpu), time_ns, Kind.XID, code, node, **values)


def learned(*evidence: Evidence, by: policy.Policy = SHIPPED) -> Fleet:
    fleet = Fleet()
    for one in evidence:
        deciding.learn(fleet, [one], by, one.time_ns, len(NODES))
    return fleet


def drained_by(fleet: Fleet, now_ns: int = START_NS + 100 * HOUR_NS) -> list[str]:
    return [action.node for action in planning.plan(fleet, NODES, SHIPPED, now_ns).actions]


def test_one_fatal_xid_makes_a_node_suspect_and_a_second_in_another_job_drains_it() -> None:
    fleet = learned(xid("119"))
    assert (fleet.node("n1").state, drained_by(fleet)) == (State.SUSPECT, [])
    assert drained_by(learned(xid("119"), xid("119", hours=30, job="2"))) == ["n1"]


@pytest.mark.parametrize(
    "second",
    [
        xid("119", hours=30, job="1"),
        xid("119", hours=30, job="2", gpu="GPU-b"),
        xid("119", hours=200, job="2"),
        xid("119", "n2", hours=30, job="2", gpu="GPU-b"),
        xid("119", hours=30, job="2", status=Status.UNKNOWN),
        xid("13", hours=30, job="2"),
    ],
    ids=["same job", "other GPU", "outside of the window", "other node", "unknown", "an Xid that programs cause"],
)
def test_a_second_observation_that_is_not_independent_drains_nothing(second) -> None:
    assert drained_by(learned(xid("119"), second)) == []


def test_what_users_can_write_waits_for_an_approval() -> None:
    first, second = (xid("119", hours=at, job=str(at), source=Source.LOGBOOK) for at in (0, 30))
    fleet = learned(first, second)
    now_ns = START_NS + 31 * HOUR_NS
    assert drained_by(fleet, now_ns) == []
    assert [row.node for row in views.approvals(fleet)] == ["n1"]
    assert "piolet fleet approve n1" in planning.plan(fleet, NODES, SHIPPED, now_ns).withheld[0].why
    deciding.add(fleet, [Instruction(Order.APPROVE, "n1", "ann")], now_ns)
    assert drained_by(fleet, now_ns) == ["n1"]


def test_what_many_nodes_of_a_job_share_is_the_jobs_doing() -> None:
    rule = Rule("many", "errors", "test", Kind.XID, State.SUSPECT, spread_nodes=1)
    assert matching(rule, xid("13"), [xid("13")], 1)
    assert matching(rule, xid("13"), [xid("13")], 2) is None


def test_a_wish_expires_and_a_hold_keeps_it_back() -> None:
    fleet = learned(xid("119"), xid("119", hours=1, job="2"))
    now_ns = START_NS + 2 * HOUR_NS
    deciding.add(fleet, [Instruction(Order.HOLD, "n1", "ann", "demo", now_ns + HOUR_NS)], now_ns)
    assert (drained_by(fleet, now_ns), drained_by(fleet, now_ns + 2 * HOUR_NS)) == ([], ["n1"])
    late_ns = now_ns + 48 * HOUR_NS
    deciding.add(fleet, deciding.due(fleet, SHIPPED, late_ns), late_ns)
    assert (fleet.node("n1").state, drained_by(fleet, late_ns)) == (State.OBSERVED, [])


def test_a_gpu_is_followed_when_it_moves() -> None:
    fleet = learned(xid("119"), xid("119", "n2", hours=5, job="2"))
    assert [node for _, node in fleet.gpus["GPU-a"].moves] == ["n1", "n2"]


def test_a_gpu_takes_its_history_along_until_a_node_came_back_with_it() -> None:
    first, second = xid("119"), xid("119", "n2", hours=5, job="2")
    assert drained_by(learned(first, second), START_NS + 6 * HOUR_NS) == ["n2"]
    fleet = learned(first)
    back = [Transition("n1", State.SUSPECT, State.DRAINED, "x"), Transition("n1", State.DRAINED, State.PROBATION, "x")]
    deciding.add(fleet, back, START_NS + HOUR_NS)
    deciding.learn(fleet, [second], SHIPPED, second.time_ns, len(NODES))
    assert (fleet.node("n2").state, fleet.node("n2").wanted) == (State.SUSPECT, None)


def test_two_kinds_of_weak_signals_make_a_node_suspect() -> None:
    weak = [
        Rule(name, name, "test", Kind.CHECK, State.OBSERVED, code=(name,), independent=Independent.JOB, per=Per.NODE)
        for name in ("dns", "clock")
    ]
    checks = [Evidence(made_id(name), START_NS, Kind.CHECK, name, "n1") for name in ("dns", "clock")]
    ours = policy.Policy(tuple(weak))
    assert learned(checks[0], by=ours).node("n1").state is State.OBSERVED
    fleet = learned(*checks, by=ours)
    assert fleet.node("n1").state is State.SUSPECT
    assert "clock, dns" in fleet.node("n1").reason


def test_shadow_notes_and_moves_nothing() -> None:
    shadow = Rule("s", "errors", "test", Kind.XID, State.DRAINED, mode=Mode.SHADOW)
    fleet = learned(xid("119"), by=policy.Policy((shadow,)))
    assert (fleet.node("n1").state, drained_by(fleet)) == (State.IN, [])
    assert [row.rule for row in views.rules(fleet)] == ["s"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[limit]\nout_nodes = 1\n", 'did you mean "limits"'),
        ("[limits]\nout_node = 1\n", 'did you mean "out_nodes"'),
        ("[limits]\nout_fraction = 2\n", "limits.out_fraction: Input should be less than or equal to 1"),
        ('[[rule]]\nname = "x"\nkind = "xid"\nto = "out"\nsummary = ""\nsource = "s"\n', "rule[0].to"),
        ('[[rule]]\nname = "x"\nkind = "xid"\nto = "suspect"\nsummary = ""\n', "rule[0].source: Field required"),
        (
            '[[rule]]\nname = "x"\nkind = "xid"\nto = "suspect"\nsummary = ""\nsource = "s"\n' * 2,
            "two rules are called",
        ),
        ("rule = 5\n", "rule: Input should be a valid"),
        ("not toml", "not valid TOML"),
    ],
)
def test_a_wrong_policy_is_an_error_that_names_file_and_line(tmp_path, text, said) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        policy.load(path)
    assert said in str(caught.value)
    assert f"{path}:" in caught.value.where


def test_every_shipped_rule_names_its_source() -> None:
    assert len(SHIPPED.rule) >= 7
    assert all(rule.source and rule.summary for rule in SHIPPED.rule)


def rows(path: Path) -> list[tuple[str, str]]:
    with store.opened(path) as opened:
        return list(opened.rows())


@pytest.fixture
def kept(tmp_path) -> Path:
    path = tmp_path / "fleet.db"
    with center.opened(path, SHIPPED) as opened:
        opened.gather([xid("119"), xid("119", hours=30, job="2"), xid("119")], len(NODES))
    return path


def test_what_is_gathered_twice_counts_once_and_the_ledger_keeps_it(kept) -> None:
    before = rows(kept)
    with center.opened(kept, SHIPPED) as opened:
        assert opened.gather([xid("119"), xid("119", hours=30, job="2")], len(NODES)) == []
    assert rows(kept) == before
    assert center.verify_ledger(kept) == (len(before), before[-1][1])
    assert center.look(kept).node("n1").wanted


@pytest.mark.parametrize("change", ["edit", "take out", "swap", "edit the end", "lose the beginning"])
def test_a_ledger_that_was_changed_is_found(kept, change) -> None:
    found = rows(kept)
    text, digest = found[1]
    changed = {
        "edit": [found[0], (text.replace("n1", "n2"), digest), *found[2:]],
        "take out": [found[0], *found[2:]],
        "swap": [found[1], found[0], *found[2:]],
        "edit the end": [*found[:-1], (found[-1][0].replace("n1", "n3"), found[-1][1])],
        "lose the beginning": found[1:],
    }[change]
    with pytest.raises(PioletError, match="the ledger is broken at entry"):
        ledger.verify(changed)


def test_only_one_process_decides_at_a_time(kept) -> None:
    with center.opened(kept, SHIPPED), pytest.raises(Refused, match="another process"), center.opened(kept, SHIPPED):
        pass


def test_a_number_that_is_taken_is_refused_and_nothing_is_written(kept) -> None:
    before = rows(kept)
    entries = ledger.append([xid("48", hours=90)], START_NS, None)
    with store.opened(kept) as opened, pytest.raises(StorageError, match="UNIQUE"):
        opened.append(entries)
    assert rows(kept) == before


def test_a_database_that_is_none_is_one_clear_error(tmp_path) -> None:
    path = tmp_path / "fleet.db"
    path.write_text("something else\n" * 100)
    with pytest.raises(StorageError, match="not a database"), center.opened(path, SHIPPED):
        pass


def test_replay_shows_what_a_changed_policy_would_have_done(kept) -> None:
    strict = policy.Policy(tuple(rule for rule in SHIPPED.rule if rule.name != "xid-fatal-again"))
    assert center.replay(kept, SHIPPED, 40).node("n1").wanted
    assert center.replay(kept, strict, 40).node("n1").wanted is None


def test_an_explanation_names_evidence_cause_and_what_comes_next(kept) -> None:
    told = views.explain(center.look(kept), "n1", SHIPPED)
    assert told.state is State.SUSPECT
    assert len(told.evidence) == 2
    assert "piolet fleet apply" in told.next
    assert any("rule xid-fatal-again (act) asks for drained" in event.what for event in told.history)
    assert json.loads(center.entries(kept)[0].text)[2] == "evidence"


def test_what_slurm_itself_says_of_a_node_is_evidence_once() -> None:
    seen = [
        Seen("n1", drained=True, reason="gres/gpu count reported lower than configured (3 < 4)", reason_ns=START_NS),
        Seen("n2", usable=False, answers=False, reason="Not responding", reason_ns=START_NS),
        Seen("n3", drained=True, reason="RAM, ask Ann", reason_ns=START_NS),
    ]
    found = gathering.from_slurm(FewNodes(), "lab", {}, seen)
    assert [(one.node, one.group, one.source) for one in found] == [
        ("n1", "node:gpus-missing", Source.SLURM),
        ("n2", "node:not-responding", Source.SLURM),
    ]
    fleet = learned(*found, *gathering.from_slurm(FewNodes(), "lab", {}, seen))
    assert [len(fleet.node(name).evidence) for name in ("n1", "n2", "n3")] == [1, 1, 0]
