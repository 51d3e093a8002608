"""Applying a plan: the only part of the fleet that changes Slurm, and the only one that runs the site's commands.

Every action is written as begun before anything is asked and as done afterwards. Whoever is killed in between leaves a
begun action, and `finish` looks whether it happened: at the node, at its reservation, at the jobs of a name, and for a
command of the site at what once.sh has noted of it.
"""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from piolet.core.errors import ToolTimeout, storage_errors
from piolet.core.nodeset import NodeSet
from piolet.core.run import Runner, SystemRunner
from piolet.fleet.gathering import node_now
from piolet.fleet.ledger import Content, Phase, State, Step, Transition, Verb
from piolet.fleet.planning import PREFIX, Action, Seen
from piolet.fleet.policy import Policy, filled
from piolet.fleet.state import Fleet, Node
from piolet.tools.slurm import sbatch, scancel, scontrol, squeue

Write = Callable[[Iterable[Content]], None]

AFTER = {
    Verb.DRAIN: State.DRAINED,
    Verb.RESUME: State.PROBATION,
    Verb.RESET: State.RESET,
    Verb.REBOOT: State.REBOOT,
    Verb.VET: State.REVALIDATE,
}
"""The state of a node after what was done to it; the other actions leave it where it is."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What acts: a runner for Slurm's commands, another for jobs, the policy, and where once.sh keeps its notes."""

    runner: Runner
    policy: Policy
    journal: Path
    submitter: Runner = field(default_factory=lambda: SystemRunner(speech={}))


def apply(actions: Iterable[Action], fleet: Fleet, hands: Hands, write: Write) -> None:
    """Carry out `actions`; `write` appends to the ledger and folds into `fleet`."""
    for action in actions:
        begun = _begun(action, fleet.node(action.node))
        write([begun])
        carry_out(begun, fleet, hands, write)


def _begun(action: Action, node: Node) -> Step:
    """Return the first phase of `action`; it knows the job that vets the node, to end it if it has to."""
    job = node.vet_job if node.state is State.REVALIDATE else ""
    return Step(action.id, action.verb, node.name, Phase.BEGUN, action.reason, action.gpu, action.protocol, job)


def finish(fleet: Fleet, hands: Hands, write: Write) -> list[Step]:
    """Finish the actions that were begun by a process that is no more, and return them."""
    left = list(fleet.open_steps.values())
    for begun in left:
        carry_out(begun, fleet, hands, write)
    return left


def carry_out(begun: Step, fleet: Fleet, hands: Hands, write: Write) -> None:
    """Do what `begun` says unless it shows that it is done, or that an administrator has the node."""
    here = node_now(hands.runner, begun.node)
    why_not = _dropped(begun, here)
    if why_not:
        write([replace(begun, phase=Phase.DROPPED, reason=why_not)])
        return
    noted = replace(begun, phase=Phase.DONE)
    if here:
        noted = _IN_SLURM[begun.verb](noted, here, hands) if begun.verb in _IN_SLURM else noted
    if begun.verb in {Verb.RESET, Verb.REBOOT, Verb.TICKET}:
        noted = _site_command(noted, fleet, hands)
    after, node = AFTER.get(begun.verb), fleet.node(begun.node)
    reason = noted.reason.removeprefix(PREFIX)
    write([noted, Transition(node.name, node.state, after, reason)] if after else [noted])


def _dropped(begun: Step, here: Seen | None) -> str:
    if begun.verb is Verb.TICKET:
        return ""
    if here is None:
        return "Slurm does not know this node any more"
    return f"drained by somebody else: {here.reason}" if here.foreign else ""


def reservation(node: str) -> str:
    """Return the name of the reservation in which `node` is vetted."""
    return f"piolet-{node}"


def _drain(step: Step, here: Seen, hands: Hands) -> Step:
    if not here.drained:
        scontrol.drain(hands.runner, NodeSet(step.node), step.reason)
    _release(step, hands)
    return step


def _resume(step: Step, here: Seen, hands: Hands) -> Step:
    if here.drained:
        scontrol.resume(hands.runner, NodeSet(step.node))
    _release(step, hands)
    return step


def _release(step: Step, hands: Hands) -> None:
    """End the reservation in which the node was vetted, with a job that is still in it."""
    name = reservation(step.node)
    if step.job:
        scancel.cancel(hands.runner, step.job)
    if scontrol.reserved(hands.runner, name):
        scontrol.release(hands.runner, name)


def _vet(step: Step, here: Seen, hands: Hands) -> Step:
    """Reserve the node before it is resumed, so that no job but the one that vets it starts there."""
    name = reservation(step.node)
    if not scontrol.reserved(hands.runner, name):
        scontrol.reserve(hands.runner, name, NodeSet(step.node), getpass.getuser())
    if here.drained:
        scontrol.resume(hands.runner, NodeSet(step.node))
    known = squeue.jobs(hands.runner, names=[_name(step)], users=[getpass.getuser()])
    job = known[0].id if known else _submitted(step, here, hands)
    return replace(step, job=str(job))


def _name(step: Step) -> str:
    """Return the name of the job that vets: by it whoever was killed finds out that it was submitted."""
    return f"piolet-{step.action}"


def _submitted(step: Step, here: Seen, hands: Hands) -> int:
    healing = hands.policy.healing
    request = sbatch.Request(
        nodes=1,
        name=_name(step),
        nodelist=step.node,
        time_limit=str(healing.vet_min),
        gpus_per_node=here.gpus or None,
        exclusive=True,
        requeue=False,
        output="/dev/null",
        chdir="/",
        extra=(f"--reservation={reservation(step.node)}",),
    )
    command = filled(healing.vet, node=step.node, protocol=step.protocol, gpu=step.gpu, id=step.action)
    body = sbatch.script(sbatch.options(request), f"exec {shlex.join(command)}", interpreter="/bin/sh")
    return sbatch.submit(body, runner=hands.submitter).job


def _mark(step: Step, here: Seen, hands: Hands) -> Step:  # noqa: ARG001 - as all actions
    feature = hands.policy.course.feature
    nodes = NodeSet(step.node)
    had = scontrol.node_records(hands.runner, nodes)[0].features
    wanted = [one for one in had if one != feature] + [feature] * (step.verb is Verb.MARK)
    if wanted != list(had):
        scontrol.set_features(hands.runner, nodes, wanted)
    return step


_IN_SLURM: dict[Verb, Callable[[Step, Seen, Hands], Step]] = {
    Verb.DRAIN: _drain,
    Verb.RESUME: _resume,
    Verb.VET: _vet,
    Verb.MARK: _mark,
    Verb.UNMARK: _mark,
}


def _site_command(step: Step, fleet: Fleet, hands: Hands) -> Step:
    """Run the site's command once for all; what it says is noted, and vetting tells whether it helped."""
    healing = hands.policy.healing
    gpu = fleet.gpus.get(step.gpu)
    argv = filled(
        healing.command(step.verb),
        node=step.node,
        gpu=step.gpu,
        serial=gpu.serial if gpu else "",
        reason=step.reason,
        id=step.action,
    )
    with storage_errors(hands.journal, "note what the site's commands did"):
        hands.journal.mkdir(parents=True, exist_ok=True)
    once = str(files("piolet.fleet").joinpath("slurm", "once.sh"))
    try:
        done = hands.runner.run(
            ["sh", once, str(hands.journal), step.action, *argv], timeout=healing.command_s, ok=None
        )
        said = "" if done.rc == 0 else f"; {argv[0]} failed with status {done.rc}: {done.stderr.strip()[-200:]}"
    except ToolTimeout:
        said = f"; {argv[0]} did not end within {healing.command_s:g} s"
    return replace(step, reason=step.reason + said)
