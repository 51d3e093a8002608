"""Over any history: limits hold, administrators win, a broken check excludes nobody, folding gives the same state."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from piolet.core.nouns import Status
from piolet.fleet import deciding, planning
from piolet.fleet.applying import AFTER
from piolet.fleet.evidence import REVALIDATION, Evidence, Kind, Source, made_id
from piolet.fleet.ledger import OUT, Instruction, Order, Phase, State, Step, Transition, Verb, read
from piolet.fleet.planning import Seen
from piolet.fleet.policy import Course, Guard, Healing, Limits, Policy
from piolet.fleet.rules import Independent, Rule
from piolet.fleet.state import Fleet, fold

HOUR_NS = 3_600_000_000_000
NAMES = [f"n{number}" for number in range(1, 25)]
RACKS = {"a": "n[1-8]", "b": "n[9-16]", "c": "n[17-24]"}
SWITCHES = {"leaf": "n[1,9,17]"}
HEALING = Healing(ladder=("reset", "reboot"), reset=("reset",), reboot=("reboot",), ticket=("ticket",))

rule = Rule("one", "an Xid", "test", Kind.XID, State.DRAINED)
twice = Rule("two", "an Xid twice", "test", Kind.XID, State.DRAINED, count=2, independent=Independent.JOB)

limits = st.builds(
    Limits,
    out_fraction=st.floats(0, 1),
    out_nodes=st.integers(0, 24),
    group_fraction=st.floats(0, 1),
    window_nodes=st.integers(0, 10),
    window_h=st.just(1.0),
    partition_keep=st.integers(1, 6),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("xid"), st.sampled_from(NAMES), st.integers(0, 3)),
        st.tuples(st.just("clock"), st.just(""), st.integers(-50, 50)),
        st.tuples(st.just("admin drains"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("admin resumes"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("return"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("vet"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("vetted"), st.just(""), st.integers(0, 2)),
        st.tuples(st.just("turn"), st.just(""), st.just(0)),
    ),
    min_size=20,
    max_size=60,
)


class World:
    """A cluster whose Slurm is a dictionary, and a fleet that acts on it; every promise is checked after each turn."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.fleet, self.written, self.clock = policy, Fleet(), [], 100 * HOUR_NS
        self.slurm = {
            name: Seen(name, ("all", "left") if number < 12 else ("all",)) for number, name in enumerate(NAMES)
        }
        self.drained_at: list[int] = []
        self.count = 0

    def step(self, what: str, node: str, number: int) -> None:
        self.count += 1
        if what == "xid":
            seen = Evidence(made_id(self.count), self.now, Kind.XID, "79", node, job=f"j{number}", source=Source.SLURM)
            self.written += deciding.learn(self.fleet, [seen], self.policy, self.now, len(NAMES))
        elif what == "clock":
            self.clock += number * HOUR_NS // 4
        elif what == "admin drains":
            self.slurm[node] = replace(self.slurm[node], usable=False, drained=True, reason="RAM, ask Ann")
        elif what == "admin resumes":
            self.slurm[node] = replace(self.slurm[node], usable=True, drained=False, reason="")
        elif what in {"return", "vet"} and self.state(node) in OUT:
            self.add([Instruction(Order(what), node, "ann")])
        elif what == "vetted":
            self.vetted(list(Status)[number])
        elif what == "turn":
            self.turn()

    @property
    def now(self) -> int:
        return max(self.clock, self.fleet.time_ns)

    def state(self, node: str) -> State:
        return self.fleet.nodes[node].state if node in self.fleet.nodes else State.IN

    def add(self, contents) -> None:
        self.written += deciding.add(self.fleet, contents, self.now)

    def turn(self) -> None:
        shown = list(self.slurm.values())
        self.add(deciding.due(self.fleet, self.policy, self.now))
        self.add(
            [Transition(n.name, n.state, State.OBSERVED, why) for n, why in planning.overridden(self.fleet, shown)]
        )
        plan = planning.plan(self.fleet, shown, self.policy, self.now)
        for action in plan.actions:
            self.carry_out(action)
        if any(action.verb is Verb.DRAIN for action in plan.actions):
            self.check_limits()
        again = planning.plan(self.fleet, list(self.slurm.values()), self.policy, self.now)
        goes_on = {action.node for action in plan.actions if action.verb is not Verb.RESUME}  # each step has a next
        made_room = any(action.verb is Verb.RESUME for action in plan.actions)
        assert made_room or {action.node for action in again.actions} <= goes_on
        assert not {one.id for one in plan.actions} & {one.id for one in again.actions}

    def carry_out(self, action) -> None:
        """What piolet.fleet.applying does, on a dictionary."""
        here, before = self.slurm[action.node], self.fleet.node(action.node).state
        assert not here.foreign, "an administrator's drain was touched"
        begun = Step(action.id, action.verb, action.node, Phase.BEGUN, action.reason)
        self.add([begun, replace(begun, phase=Phase.DONE, job=action.id)])
        if action.verb is Verb.DRAIN and before not in OUT:
            self.drained_at.append(self.now)
        shown = {
            Verb.DRAIN: replace(here, drained=True, usable=False, reason=action.reason),
            Verb.RESUME: replace(here, drained=False, usable=True, reason=""),
            Verb.VET: replace(here, drained=False, usable=False, reason=""),
        }
        self.slurm[action.node] = shown.get(action.verb, here)
        if action.verb in AFTER:
            self.add([Transition(action.node, before, AFTER[action.verb], "x")])

    def vetted(self, status: Status) -> None:
        for job, node in self.fleet.vet_jobs.items():
            seen = Evidence(
                made_id(job, self.now),
                self.now,
                Kind.CHECK,
                REVALIDATION,
                node,
                status=status,
                job=job,
                source=Source.SLURM,
            )
            self.written += deciding.learn(self.fleet, [seen], self.policy, self.now, len(NAMES))

    def check_limits(self) -> None:
        bounds = self.policy.limits
        ours = {one.name for one in self.slurm.values() if one.ours or self.state(one.name) in OUT}
        assert len(ours) <= min(bounds.out_nodes, bounds.out_fraction * len(NAMES))
        recent = [time for time in self.drained_at if time >= self.now - bounds.window_h * HOUR_NS]
        assert len(recent) <= bounds.window_nodes
        for first in (1, 9, 17):
            rack = {f"n{number}" for number in range(first, first + 8)}
            assert len(ours & rack) <= bounds.group_fraction * 8
        assert len(ours & {"n1", "n9", "n17"}) <= bounds.group_fraction * 3
        touched = {"all"} | ({"left"} if ours & set(NAMES[:12]) else set())
        for name in touched:
            members = [one for one in self.slurm.values() if name in one.partitions]
            usable = sum(one.usable for one in members)
            if all(
                one.usable or one.name in ours for one in members
            ):  # else administrators emptied it, which is theirs to do
                assert usable >= bounds.partition_keep


@settings(max_examples=25, deadline=None)
@given(limits, st.booleans(), steps)
def test_no_history_makes_the_fleet_exceed_a_limit_or_touch_an_administrators_drain(bounds, count_two, history) -> None:
    guard = Guard(nodes=1000)
    world = World(Policy((twice if count_two else rule,), bounds, guard, Course(), HEALING, RACKS, SWITCHES))
    for step in history:
        world.step(*step)
        world.turn() if step[0] == "xid" and step[2] == 0 else None


@settings(max_examples=25, deadline=None)
@given(steps)
def test_the_state_is_the_same_however_often_the_ledger_is_folded(history) -> None:
    world = World(
        Policy(
            (rule,), Limits(out_fraction=0.5, window_nodes=10), Guard(nodes=1000), Course(), HEALING, RACKS, SWITCHES
        )
    )
    for step in history:
        world.step(*step)
    again = fold(Fleet(), read((entry.text, entry.hash) for entry in world.written))
    assert again == world.fleet
    assert [entry.time_ns for entry in world.written] == sorted(entry.time_ns for entry in world.written)


@settings(max_examples=40, deadline=None)
@given(st.permutations(NAMES), st.integers(2, 8))
def test_the_same_failure_on_many_nodes_indicts_the_check_and_drains_none(order, most) -> None:
    policy = Policy((rule,), Limits(out_fraction=1, out_nodes=99, group_fraction=1, window_nodes=99), Guard(most, 0))
    fleet = Fleet()
    evidence = [
        Evidence(made_id(name), 1000 + place, Kind.XID, "79", name, source=Source.SLURM)
        for place, name in enumerate(order[:most])
    ]
    deciding.learn(fleet, evidence, policy, 2000, len(NAMES))
    plan = planning.plan(fleet, [Seen(name, ("all",)) for name in NAMES], policy, 2000)
    assert plan.actions == ()
    assert "xid:79" in fleet.breakers
    assert all("breaker" in one.why for one in plan.withheld)
    assert len(plan.withheld) == most - 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5)), max_size=40), st.randoms())
def test_evidence_reported_twice_in_any_order_counts_once(reports, random) -> None:
    policy = Policy((twice,), Limits(), Guard(nodes=1000))
    evidence = [
        Evidence(made_id(node, job), 1000 + job, Kind.XID, "79", node, job=f"j{job}", source=Source.SLURM)
        for node, job in reports
    ]
    once, doubled = Fleet(), Fleet()
    unique = list({one.id: one for one in evidence}.values())
    deciding.learn(once, unique, policy, 5000, 24)
    for one in unique:
        deciding.learn(doubled, [one, *random.sample(unique[: unique.index(one) + 1], 1)], policy, 5000, 24)
    assert {name: node.state for name, node in once.nodes.items()} == {
        name: node.state for name, node in doubled.nodes.items()
    }
    assert once.last == doubled.last
    assert all(not node.wanted or node.wanted.reason.startswith("an Xid twice") for node in once.nodes.values())
