"""Deciding: what new evidence and the passing of time mean for nodes. Pure: a fleet and a policy in, contents out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from piolet.core.nouns import Status
from piolet.fleet import ledger
from piolet.fleet.evidence import Evidence
from piolet.fleet.ledger import LADDER, OUT, Breaker, Content, Entry, Firing, Mode, State, Transition
from piolet.fleet.policy import Policy
from piolet.fleet.rules import Match, Per, Rule, matching
from piolet.fleet.state import Fleet, Node, fold

_HOUR_NS = 3_600_000_000_000
_DAY_NS = 24 * _HOUR_NS


def learn(fleet: Fleet, new: Iterable[Evidence], policy: Policy, now_ns: int, size: int) -> list[Entry]:
    """Take `new` evidence into `fleet`, with what follows from it; return the entries to be written.

    `size` is the number of nodes of the cluster. Evidence that is known by its id is left out.
    """
    written: list[Entry] = []
    for one in new:
        if one.id not in fleet.known:
            written += add(fleet, [one], now_ns)
            written += _consequences(fleet, one, policy, now_ns, size)
    return written


def add(fleet: Fleet, contents: Iterable[Content], now_ns: int) -> list[Entry]:
    """Fold `contents` into `fleet` as new entries, and return these."""
    entries = ledger.append(contents, now_ns, fleet.last)
    fold(fleet, entries)
    return entries


def _consequences(fleet: Fleet, seen: Evidence, policy: Policy, now_ns: int, size: int) -> list[Entry]:
    if not (seen.node and seen.failed):
        return []
    written = add(fleet, _breaker(fleet, seen, policy, size), now_ns)
    node = fleet.node(seen.node)
    for firing in list(_firings(fleet, node, seen, policy)):
        written += add(fleet, [firing], now_ns)
        written += add(fleet, _climb(node, firing, policy), now_ns)
    return written


def _breaker(fleet: Fleet, seen: Evidence, policy: Policy, size: int) -> Iterator[Breaker]:
    guard = policy.breaker
    since_ns = max(seen.time_ns - guard.window_min * 60e9, fleet.closed_ns.get(seen.group, 0))
    failing = {name for time_ns, name in fleet.groups[seen.group] if since_ns <= time_ns <= seen.time_ns}
    if seen.group not in fleet.breakers and len(failing) >= max(guard.nodes, guard.fraction * size):
        reason = f"{seen.group} failed on {len(failing)} nodes within {guard.window_min:g} min"
        yield Breaker(seen.group, len(failing), reason)


def _firings(fleet: Fleet, node: Node, seen: Evidence, policy: Policy) -> Iterator[Firing]:
    spread = len(fleet.spread.get((seen.job, seen.group), ())) if seen.job else 1
    of_node = [one for one in node.evidence if one.time_ns >= node.forgiven_ns]
    gpu = fleet.gpus.get(seen.gpu)
    of_gpu = [one for one in gpu.evidence if one.time_ns >= gpu.forgiven_ns] if gpu else of_node
    for rule in policy.rule if seen.time_ns >= node.forgiven_ns else ():
        history = of_gpu if rule.per is Per.GPU else of_node
        match = None if _fired_on(node, rule, seen) else matching(rule, seen, history, spread)
        if match:
            again = node.state is State.PROBATION and rule.to is State.SUSPECT
            yield Firing(
                rule.name,
                node.name,
                seen.group,
                State.DRAINED if again else rule.to,
                _mode(fleet, match),
                match.reason + (" on probation" if again else ""),
                tuple(one.id for one in match.observations),
                seen.gpu,
                rule.severity,
            )


def _fired_on(node: Node, rule: Rule, seen: Evidence) -> bool:
    """Whether the rule has said this already: it speaks again after its window, or when the node was taken back."""
    fired_ns = node.fired.get((rule.name, seen.gpu))
    if fired_ns is None or seen.time_ns >= fired_ns + rule.window_h * _HOUR_NS:
        return False
    taken_back = node.since_ns > fired_ns and _rank(node.state) < LADDER.index(rule.to)
    return not taken_back


def _mode(fleet: Fleet, match: Match) -> Mode:
    """Return the rule's mode; an open breaker only notes, and what users could have written only advises."""
    if any(one.group in fleet.breakers for one in match.observations):
        return Mode.SHADOW
    if match.rule.mode is Mode.ACT and not all(one.source.trusted for one in match.observations):
        return Mode.ADVISE
    return match.rule.mode


def _climb(node: Node, firing: Firing, policy: Policy) -> Iterator[Transition]:
    """Yield the step up the ladder that a firing means. Only a drain in Slurm makes a node DRAINED."""
    if firing.mode is Mode.SHADOW or node.state in OUT:
        return
    to = State.SUSPECT if firing.to is State.DRAINED else firing.to
    several = len(node.signals) >= policy.course.signals
    if to is State.OBSERVED and several:
        to = State.SUSPECT
    if LADDER.index(to) > _rank(node.state):
        reason = firing.reason if not several else f"{firing.reason}; signals: {', '.join(sorted(node.signals))}"
        yield Transition(node.name, node.state, to, reason)


def _rank(state: State) -> int:
    return LADDER.index(state) if state in LADDER else 0


def due(fleet: Fleet, policy: Policy, now_ns: int) -> list[Transition]:
    """Return what the passing of time means: quiet nodes come in, wishes to drain expire, probations end."""
    return [moved for node in fleet.nodes.values() for moved in _due(node, policy, now_ns)]


def _due(node: Node, policy: Policy, now_ns: int) -> Iterator[Transition]:
    course = policy.course
    if node.state is State.PROBATION and len(node.clean) >= course.clean_jobs:
        yield Transition(node.name, node.state, State.IN, f"{len(node.clean)} clean jobs on probation")
    elif node.state is State.SUSPECT and node.wanted and now_ns - node.wanted_ns > course.wish_h * _HOUR_NS:
        yield Transition(node.name, node.state, State.OBSERVED, f"nobody drained it within {course.wish_h:g} h")
    elif node.state in {State.OBSERVED, State.SUSPECT}:
        quiet_ns = now_ns - max([node.since_ns, *(one.time_ns for one in node.evidence)])
        days = quiet_days(node, policy)
        if quiet_ns > days * _DAY_NS:
            yield Transition(node.name, node.state, State.IN, f"quiet for {days:g} days")
    elif node.state is State.DRAINED:
        yield from _hopeless(node, policy, now_ns)


def quiet_days(node: Node, policy: Policy) -> float:
    """Return for how many days without new evidence a node stays observed or suspect: the longest of its rules'."""
    usual = policy.course.quiet_days
    return max((rule.quiet_days or usual for rule in policy.rule if rule.name in node.signals), default=usual)


def _hopeless(node: Node, policy: Policy, now_ns: int) -> Iterator[Transition]:
    healing = policy.healing
    cycles = node.cycles(round(now_ns - healing.cycles_days * _DAY_NS))
    if not healing.ladder:
        return
    if cycles >= healing.cycles:
        reason = f"drained {cycles} times in {healing.cycles_days:g} days"
        yield Transition(node.name, node.state, State.RMA, reason)
    elif node.vetted is Status.FAIL and node.tried >= len(rungs(node, policy)):
        yield Transition(node.name, node.state, State.RMA, f"not healed by {', '.join(rungs(node, policy))}")


def rungs(node: Node, policy: Policy) -> tuple[str, ...]:
    """Return what may heal a node: a reset is for a node that is out because of a GPU."""
    about_gpu = bool(node.wanted and node.wanted.gpu)
    return tuple(rung for rung in policy.healing.ladder if rung != "reset" or about_gpu)
