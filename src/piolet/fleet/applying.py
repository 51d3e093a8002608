"""Applying a plan: the only part of the fleet that changes Slurm.

Every action is written as begun before Slurm is asked and as done afterwards. Whoever is killed in between leaves a
begun action, and `finish` looks at Slurm to see whether it happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from piolet.core.nodeset import NodeSet
from piolet.core.run import Runner
from piolet.fleet.gathering import cluster_now
from piolet.fleet.ledger import Content, Phase, State, Step, Transition, Verb
from piolet.fleet.planning import PREFIX, Action, Seen
from piolet.fleet.state import Fleet
from piolet.tools.slurm import scontrol

Write = Callable[[Iterable[Content]], None]


def apply(actions: Iterable[Action], fleet: Fleet, runner: Runner, write: Write) -> None:
    """Carry out `actions`; `write` appends to the ledger and folds into `fleet`."""
    for action in actions:
        begun = Step(action.id, action.verb, action.node, Phase.BEGUN, action.reason)
        write([begun])
        carry_out(begun, fleet, runner, write)


def finish(fleet: Fleet, runner: Runner, write: Write) -> list[Step]:
    """Finish the actions that were begun by a process that is no more, and return them."""
    left = list(fleet.open_steps.values())
    for begun in left:
        carry_out(begun, fleet, runner, write)
    return left


def carry_out(begun: Step, fleet: Fleet, runner: Runner, write: Write) -> None:
    """Do what `begun` says unless Slurm shows that it is done, or that an administrator has the node."""
    here = next((one for one in cluster_now(runner) if one.name == begun.node), None)
    why_not = _dropped(here)
    if why_not:
        write([Step(begun.action, begun.verb, begun.node, Phase.DROPPED, why_not)])
        return
    drain = begun.verb is Verb.DRAIN
    if here and drain and not here.drained:
        scontrol.drain(runner, NodeSet(begun.node), begun.reason)
    elif here and not drain and here.drained:
        scontrol.resume(runner, NodeSet(begun.node))
    after = State.DRAINED if drain else State.PROBATION
    before = fleet.node(begun.node).state
    reason = begun.reason.removeprefix(PREFIX)
    done = Step(begun.action, begun.verb, begun.node, Phase.DONE, begun.reason)
    write([done, Transition(begun.node, before, after, reason)])


def _dropped(here: Seen | None) -> str:
    if here is None:
        return "Slurm does not know this node any more"
    return f"drained by somebody else: {here.reason}" if here.drained and not here.ours else ""
