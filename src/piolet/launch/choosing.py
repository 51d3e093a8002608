"""From the nodes that are held to those that the program gets: vet, choose, give back, and write down what is known."""

from __future__ import annotations

import time
from collections.abc import Mapping

from piolet.core.errors import PioletError, Refused
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Gpu
from piolet.core.text import plural
from piolet.launch.session import Session
from piolet.launch.telling import say
from piolet.logbook import records
from piolet.vet import Protocol as VettingProtocol
from piolet.vet import Verdict, choose

INVENTORY = VettingProtocol("inventory", ())
"""Checks nothing: its answers tell which GPUs a node has."""


def ready_nodes(session: Session, protocol: VettingProtocol | None) -> NodeSet:
    """Vet, choose and give back; write down what was found before anything is decided on it."""
    machine, request = session.machine, session.request
    if protocol is None:
        used = machine.nodes.first(request.nodes)
        _note_allocation(session, used, machine.vet(INVENTORY).inventory)
        return used
    verdict = _vetted(session, protocol)
    try:
        wanted = min(request.nodes, len(machine.nodes))  # one machine stands for all nodes of a local run
        choice = choose(wanted, verdict, keep_first=machine.batch_node)
    except Refused as too_few:  # nothing that the user asked for was wrong: the nodes are not good enough
        raise PioletError(too_few.what, remedy=too_few.remedy) from too_few
    freed = machine.give_back(machine.nodes - choice.used)
    if freed:
        say(f"{plural(len(choice.used), 'good node')}: {choice.used}; given back: {freed}")
    _note_allocation(session, choice.used, verdict.inventory)
    return choice.used


def _vetted(session: Session, protocol: VettingProtocol) -> Verdict:
    nodes = session.machine.nodes
    say(f"vetting {plural(len(nodes), 'node')} with {protocol.name}: {nodes}")
    if protocol.left_out:
        say(f"its budget left out {', '.join(protocol.left_out)}")
    verdict = session.machine.vet(protocol)
    records.write_checks(session.logbook.vet, "before", verdict.results)
    session.update(refused=tuple(records.Refusal(node, reason) for node, reason in verdict.refused))
    _note_allocation(session, NodeSet(), verdict.inventory)
    for refusal in verdict.refused:
        say(f"{refusal.node} is refused: {refusal.reason}")
    return verdict


def _note_allocation(session: Session, used: NodeSet, inventory: Mapping[str, tuple[Gpu, ...]]) -> None:
    """Write down which nodes and GPUs are held, which of them are used, and what of all that is simulated."""
    now = time.time_ns()
    held = [
        records.NodeAllocation(node, inventory.get(node, ()), now, used=node in used) for node in session.machine.nodes
    ]
    simulated = any(gpu.simulated for gpus in inventory.values() for gpu in gpus)
    session.update(allocation=tuple(held), simulated=session.machine.simulated() + (("GPUs",) if simulated else ()))
