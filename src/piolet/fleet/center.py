"""The operators' centre: the ledger, the policy and Slurm, brought together in the steps of one turn.

with opened(where, policy) as center:        hold the lease, fold the ledger
    center.gather(evidence, size)           learn, and decide what follows
    center.plan(seen)                       what to do now, under limits
    center.apply(plan, hands)               do it, each action written before and after
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from piolet.core.errors import Refused, UsageError
from piolet.core.run import Runner
from piolet.core.text import did_you_mean
from piolet.fleet import applying, deciding, planning, store
from piolet.fleet.applying import Hands
from piolet.fleet.evidence import Evidence
from piolet.fleet.ledger import OUT, Content, Entry, Instruction, Order, State, Step, Transition, read, verify
from piolet.fleet.planning import Plan, Seen
from piolet.fleet.policy import Policy
from piolet.fleet.state import Fleet, fold
from piolet.fleet.store import Store, Where

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Center:
    """A fleet that this process decides for."""

    store: Store
    fleet: Fleet
    policy: Policy
    clock: Clock = time.time_ns

    def now_ns(self) -> int:
        """Return the time by this fleet: the clock's, but never before its last entry."""
        return max(self.clock(), self.fleet.time_ns)

    def gather(self, evidence: Iterable[Evidence], size: int) -> list[Entry]:
        """Learn `evidence` of a cluster of `size` nodes, oldest first, and return what was written."""
        return self.gather_all([evidence], size)[0]

    def gather_all(self, batches: Iterable[Iterable[Evidence]], size: int) -> list[list[Entry]]:
        """Learn several batches in one transaction, and return what was written of each."""
        written = []
        for batch in batches:
            ordered = sorted(batch, key=lambda one: (one.time_ns, one.id))
            written.append(deciding.learn(self.fleet, ordered, self.policy, self.now_ns(), size))
        self.store.append([entry for entries in written for entry in entries])
        return written

    def settle(self, seen: Sequence[Seen]) -> None:
        """Write what the passing of time means, and what administrators did."""
        self.write(deciding.due(self.fleet, self.policy, self.now_ns()))
        self.write(
            [
                Transition(node.name, node.state, State.OBSERVED, f"an administrator's word wins: {why}")
                for node, why in planning.overridden(self.fleet, seen)
            ]
        )

    def plan(self, seen: Sequence[Seen]) -> Plan:
        """Return what to do now; changes nothing."""
        return planning.plan(self.fleet, seen, self.policy, self.now_ns())

    def hands(self, runner: Runner) -> Hands:
        """Return what acts on this fleet with `runner`."""
        return Hands(runner, self.policy, self.store.notes)

    def apply(self, plan: Plan, hands: Hands) -> None:
        """Do what `plan` says."""
        applying.apply(plan.actions, self.fleet, hands, self.write)

    def finish(self, hands: Hands) -> list[Step]:
        """Finish what a process that was killed had begun."""
        return applying.finish(self.fleet, hands, self.write)

    def instruct(self, said: Instruction) -> None:
        """Write an operator's order.

        Raises:
            UsageError: nothing is known of the node or the breaker.
            Refused: there is nothing that the order could be about.
        """
        _check(self.fleet, said)
        self.write([said])

    def write(self, contents: Iterable[Content]) -> None:
        """Append `contents` to the ledger and fold them."""
        self.store.append(deciding.add(self.fleet, contents, self.now_ns()))


@contextmanager
def opened(where: Where, policy: Policy, clock: Clock = time.time_ns) -> Iterator[Center]:
    """Open the fleet at `where` to decide for it; Refused while another process does."""
    with store.acting(where) as opened_store:
        yield Center(opened_store, fold(Fleet(), read(opened_store.rows())), policy, clock)


def look(where: Where) -> Fleet:
    """Return the state of the fleet at `where`, without the right to change it."""
    with store.opened(_existing(where)) as opened_store:
        return fold(Fleet(), read(opened_store.rows()))


def entries(where: Where) -> list[Entry]:
    """Return every entry of the ledger at `where`."""
    with store.opened(_existing(where)) as opened_store:
        return list(read(opened_store.rows()))


def verify_ledger(where: Where) -> tuple[int, str]:
    """Return the number of entries and the last hash; a PioletError names the first entry that was changed."""
    with store.opened(_existing(where)) as opened_store:
        return verify(opened_store.rows())


def replay(where: Where, policy: Policy, size: int) -> Fleet:
    """Return the fleet as `policy` would have made it from the evidence of the ledger; writes nothing."""
    fleet = Fleet()
    for entry in entries(where):
        if isinstance(entry.content, Evidence):
            deciding.learn(fleet, [entry.content], policy, entry.time_ns, size)
    return fleet


def _existing(where: Where) -> Where:
    if not store.exists(where):
        raise UsageError("there is no fleet yet", where=str(where), remedy="`piolet fleet gather` begins its ledger")
    return where


def _check(fleet: Fleet, said: Instruction) -> None:
    if said.order is Order.CLOSE_BREAKER:
        if said.target not in fleet.breakers:
            raise UsageError(f"no breaker of {said.target} is open", remedy=did_you_mean(said.target, fleet.breakers))
        return
    node = fleet.nodes.get(said.target)
    if node is None and said.order is not Order.HOLD:
        raise UsageError(f"nothing is known of {said.target}", remedy=did_you_mean(said.target, fleet.nodes))
    if said.order is Order.APPROVE and not (node and node.wanted):
        raise Refused(f"nothing waits for an approval on {said.target}", remedy="`piolet fleet plan` lists what does")
    if said.order in {Order.RETURN, Order.VET} and not (node and node.state in OUT):
        raise Refused(
            f"{said.target} is not held out by the fleet", remedy="`piolet fleet status` lists those that are"
        )
