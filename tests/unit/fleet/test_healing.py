"""The way back of a node: what is planned for it in each state, and when it is given up."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from fleet_service import FewNodes

from piolet.core.errors import ConfigError
from piolet.core.nouns import Status
from piolet.fleet import applying, deciding, planning, policy, trials
from piolet.fleet.applying import Hands
from piolet.fleet.evidence import REVALIDATION, Evidence, Kind, Source, made_id
from piolet.fleet.ledger import Firing, Instruction, Mode, Order, Phase, State, Step, Transition, Verb
from piolet.fleet.planning import PREFIX, Seen
from piolet.fleet.policy import Healing, Policy, filled
from piolet.fleet.state import Fleet

DAY_NS = 86_400_000_000_000
NOW_NS = 1000 * DAY_NS
OURS = Seen("n1", usable=False, drained=True, reason=PREFIX + "x")
RESERVED = Seen("n1", usable=False)
HEALING = Healing(ladder=("reset", "reboot"), reset=("reset",), reboot=("reboot",), ticket=("tell",))
RULES = Policy(healing=HEALING)


def drained(*, gpu: str = "GPU-a", times: int = 1, tier: str = "") -> Fleet:
    fleet = Fleet()
    seen = Evidence(made_id("x"), NOW_NS, Kind.XID, "79", "n1", gpu=gpu, tier=tier)
    for _ in range(times):
        moves = [State.SUSPECT, State.DRAINED] if fleet.node("n1").state is State.IN else [State.IN, State.DRAINED]
        firing = Firing("r", "n1", "xid:79", State.DRAINED, Mode.ACT, "why", (), gpu)
        deciding.add(fleet, [seen, Transition("n1", State.IN, moves[0], "x"), firing], NOW_NS)
        deciding.add(fleet, [Transition("n1", moves[0], State.DRAINED, "x")], NOW_NS)
    return fleet


def goes(fleet: Fleet, to: State) -> None:
    deciding.add(fleet, [Transition("n1", fleet.node("n1").state, to, "x")], NOW_NS)


def vetted(fleet: Fleet, status: Status, *, job: str = "7", source: Source = Source.SLURM) -> None:
    step = Step("vet", Verb.VET, "n1", Phase.DONE, job="7")
    deciding.add(fleet, [step, Transition("n1", fleet.node("n1").state, State.REVALIDATE, "x")], NOW_NS)
    said = Evidence("v", NOW_NS, Kind.CHECK, REVALIDATION, "n1", status=status, job=job, source=source)
    deciding.add(fleet, [said], NOW_NS)


def next_verbs(fleet: Fleet, here: Seen = OURS, rules: Policy = RULES, now_ns: int = NOW_NS) -> list[Verb]:
    return [action.verb for action in planning.plan(fleet, [here], rules, now_ns).actions]


def test_a_node_climbs_the_rungs_and_each_is_followed_by_vetting() -> None:
    fleet = drained()
    assert next_verbs(fleet) == [Verb.RESET]
    goes(fleet, State.RESET)
    assert next_verbs(fleet) == [Verb.VET]
    vetted(fleet, Status.FAIL)
    assert next_verbs(fleet, RESERVED) == [Verb.DRAIN]
    goes(fleet, State.DRAINED)
    assert next_verbs(fleet) == [Verb.REBOOT]
    goes(fleet, State.REBOOT)
    vetted(fleet, Status.FAIL)
    goes(fleet, State.DRAINED)
    assert next_verbs(fleet) == []
    deciding.add(fleet, deciding.due(fleet, RULES, NOW_NS), NOW_NS)
    assert fleet.node("n1").state is State.RMA
    assert "not healed by reset, reboot" in fleet.node("n1").reason
    assert next_verbs(fleet) == [Verb.TICKET]
    deciding.add(fleet, [Step("t", Verb.TICKET, "n1", Phase.DONE)], NOW_NS)
    assert next_verbs(fleet) == []


def test_a_node_that_passes_is_resumed_and_marked() -> None:
    fleet = drained()
    goes(fleet, State.RESET)
    vetted(fleet, Status.PASS)
    assert next_verbs(fleet, RESERVED) == [Verb.RESUME]
    goes(fleet, State.PROBATION)
    assert next_verbs(fleet, Seen("n1")) == [Verb.MARK]
    assert next_verbs(fleet, Seen("n1", drained=True, reason="RAM")) == []


def test_what_could_not_be_told_waits_for_an_operator_who_can_ask_again() -> None:
    fleet = drained()
    goes(fleet, State.RESET)
    vetted(fleet, Status.UNKNOWN)
    assert next_verbs(fleet, RESERVED) == [Verb.DRAIN]
    goes(fleet, State.DRAINED)
    assert next_verbs(fleet) == []
    deciding.add(fleet, [Instruction(Order.VET, "n1", "ann")], NOW_NS)
    assert next_verbs(fleet) == [Verb.VET]


@pytest.mark.parametrize(
    ("job", "source"), [("8", Source.SLURM), ("7", Source.LOGBOOK)], ids=["another job", "a user's logbook"]
)
def test_only_the_fleets_own_job_says_whether_a_node_is_healed(job, source) -> None:
    fleet = drained()
    goes(fleet, State.RESET)
    vetted(fleet, Status.PASS, job=job, source=source)
    assert next_verbs(fleet, RESERVED) == []


def test_a_vetting_job_that_says_nothing_is_ended_and_not_waited_for_for_ever(tmp_path) -> None:
    fleet = drained()
    deciding.add(fleet, [Step("vet", Verb.VET, "n1", Phase.DONE, job="7")], NOW_NS)
    goes(fleet, State.REVALIDATE)
    assert next_verbs(fleet, RESERVED) == []
    plan, slurm = planning.plan(fleet, [RESERVED], RULES, NOW_NS + DAY_NS), FewNodes()
    applying.apply(plan.actions, fleet, Hands(slurm, RULES, tmp_path), lambda new: deciding.add(fleet, new, NOW_NS))
    assert slurm.reasons["n1"] == "piolet: job 7 has said nothing"
    assert any(argv[0] == "scancel" and argv[-1] == "7" for argv in slurm.asked)


def test_the_third_drain_in_a_week_is_for_rma_at_once() -> None:
    fleet = drained(times=3)
    (moved,) = deciding.due(fleet, RULES, NOW_NS)
    assert (moved.after, moved.reason) == (State.RMA, "drained 3 times in 7 days")
    assert deciding.due(drained(times=2), RULES, NOW_NS) == []
    assert deciding.due(fleet, RULES, NOW_NS + 8 * DAY_NS) == []


def test_without_a_gpu_to_blame_none_is_reset_and_without_a_ladder_an_operator_heals() -> None:
    assert next_verbs(drained(gpu="")) == [Verb.REBOOT]
    assert next_verbs(drained(), rules=Policy()) == []


@pytest.mark.parametrize(
    "here", [replace(OURS, busy=True), replace(OURS, reason="RAM"), None], ids=["busy", "an administrator's", "gone"]
)
def test_a_node_is_not_healed_while_jobs_or_administrators_have_it(here) -> None:
    plan = planning.plan(drained(), [here] if here else [], RULES, NOW_NS)
    assert (plan.actions, len(plan.withheld)) == ((), 1)


def test_vetting_runs_the_protocol_that_found_the_node_bad() -> None:
    fleet = drained(tier="burn-in")
    goes(fleet, State.RESET)
    assert planning.plan(fleet, [OURS], RULES, NOW_NS).actions[0].protocol == "burn-in"
    fleet = drained()
    goes(fleet, State.RESET)
    assert planning.plan(fleet, [OURS], RULES, NOW_NS).actions[0].protocol == "quick"


def test_on_probation_one_signal_is_enough_and_jobs_of_logbooks_do_not_end_it() -> None:
    rules = policy.load()
    fleet = drained()
    goes(fleet, State.PROBATION)
    ends = [
        Evidence(f"j{at}", NOW_NS + at, Kind.JOB, "COMPLETED", nodes="n1", status=Status.PASS, job=job, source=source)
        for at, job, source in ((1, "1", Source.SLURM), (2, "1", Source.SLURM), (3, "2", Source.LOGBOOK))
    ]
    deciding.learn(fleet, ends, rules, NOW_NS, 40)
    assert fleet.node("n1").clean == {"1"}
    deciding.learn(fleet, [Evidence("x", NOW_NS + 9, Kind.XID, "119", "n1")], rules, NOW_NS, 40)
    assert fleet.node("n1").wanted is not None
    assert "on probation" in fleet.node("n1").wanted.reason


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[healing]\nladder = ["reset"]\n', 'the ladder has "reset", and there is no command for it'),
        ('[healing]\nladder = ["pray"]\n', "healing.ladder[0]"),
        ('[healing]\nreset = ["reset", "{host}"]\n', "'host' is nothing that can stand in braces"),
        ('[healing]\nvet = ["{"]\n', "healing.vet"),
        ('[[test]]\nname = "x"\nevidence = []\nto = "in"\n', "test[0].evidence"),
    ],
)
def test_a_wrong_way_back_is_an_error_that_names_the_key(tmp_path, text, said) -> None:
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"healing|test") as caught:
        policy.load(tmp_path / "policy.toml")
    assert said in str(caught.value)


def test_commands_are_filled_word_by_word() -> None:
    assert filled(("ssh", "{node}", "reset '{gpu}'"), node="n1; rm x", gpu="GPU-a") == [
        "ssh",
        "n1; rm x",
        "reset 'GPU-a'",
    ]


def test_every_shipped_rule_is_tested_and_every_test_holds() -> None:
    rules = policy.load()
    answers = trials.tried(rules)
    assert all(answer.right for answer in answers)
    assert {name for answer in answers for name in answer.fires} == {rule.name for rule in rules.rule}


def test_a_test_that_does_not_hold_says_what_followed_instead() -> None:
    rules = policy.load()
    wrong = replace(rules, test=(replace(rules.test[0], to=State.DRAINED),))
    (answer,) = trials.tried(wrong)
    assert (answer.right, answer.to, answer.fires) == (False, State.SUSPECT, ("xid-fatal",))


def once(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    script = str(files("piolet.fleet").joinpath("slurm", "once.sh"))
    return subprocess.run(["sh", script, directory, "id", *command], check=False, capture_output=True, text=True)


def test_a_command_runs_once_and_its_status_is_kept(tmp_path) -> None:
    for _ in range(2):
        assert once(tmp_path, "sh", "-c", f"echo x >> {tmp_path}/runs; exit 3").returncode == 3
    assert (tmp_path / "runs").read_text() == "x\n"


def test_a_command_whose_end_was_not_noted_runs_again(tmp_path) -> None:
    (tmp_path / "id.lock").touch()
    (tmp_path / "id.done.partial").write_text("")
    assert once(tmp_path, "true").returncode == 0
