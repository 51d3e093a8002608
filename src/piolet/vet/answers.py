"""From what nodes printed to a verdict. Pure: no clock, no file, no program.

A node answers with one JSON object that starts with `MARKER`. Everything else on its output is noise from
tools and is passed over. Each node fails closed: no answer, more than one, one under another node's name, one that is
torn or that lacks a check, all make the node unknown. A node is judged by its own answer, and where a check is
uniform also by its peers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Gpu, Status
from piolet.vet.peers import compared
from piolet.vet.protocol import Protocol

VERSION = 1
MARKER = '{"piolet_vet":'
"""How an answer begins. It cannot occur inside of one, where quotes in a string are escaped."""

_CLAIM = re.compile(r'\{"piolet_vet":\s*\d+,\s*"node":\s*"(?P<node>[^"\\]+)"')

ANSWER = "answer"
"""Name of the result that stands for a missing or unusable answer."""


class Refusal(NamedTuple):
    """A node that is not ready, and why."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of `nodes` are ready, why the others are not, and all that was seen.

    `inventory` holds the allocated GPUs of each node that answered.
    `unknown` are the refused nodes for which nothing was found wrong: they could not be judged.
    """

    nodes: NodeSet
    ready: NodeSet
    refused: tuple[Refusal, ...]
    unknown: NodeSet
    results: tuple[CheckResult, ...]
    inventory: dict[str, tuple[Gpu, ...]] = field(default_factory=dict)


class Unusable(Exception):  # noqa: N818 - the state of the answer
    """An answer that cannot be trusted; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one node said."""

    node: str
    results: tuple[CheckResult, ...]
    gpus: tuple[Gpu, ...]


def judge_answers(
    nodes: NodeSet, texts: Iterable[str], protocol: Protocol, *, silence: Mapping[str, str] | None = None
) -> Verdict:
    """Judge each of `nodes` by what was printed; `texts` is the output of each task.

    `silence` says for some nodes why they may have said nothing, as far as Slurm knows it. Answers of nodes that
    were not asked are ignored.
    """
    claims: dict[str, list[str]] = {}
    for text in texts:
        for piece in pieces(text):
            claims.setdefault(_claimed_name(piece), []).append(piece)
    answers: dict[str, Answer] = {}
    reasons: dict[str, str] = {}
    for node in nodes:
        try:
            answers[node] = _answer(node, claims.get(node, []), protocol, (silence or {}).get(node, ""))
        except Unusable as reason:
            reasons[node] = str(reason)
    models = {node: answer.gpus[0].model for node, answer in answers.items() if answer.gpus}
    results = compared([result for answer in answers.values() for result in answer.results], protocol, models)
    results = [_placed(result, protocol) for result in results]
    stage = protocol.checks[0].stage if protocol.checks else ""
    results += [CheckResult(ANSWER, node, Status.UNKNOWN, reason, stage=stage) for node, reason in reasons.items()]
    return verdict_of(nodes, tuple(results), {node: answer.gpus for node, answer in answers.items()})


def merged(before: Verdict, after: Verdict) -> Verdict:
    """Return the verdict of two stages, of which the second asked nodes that were ready after the first."""
    return Verdict(
        before.nodes,
        before.ready & after.ready,
        before.refused + after.refused,
        before.unknown | after.unknown,
        before.results + after.results,
        {**after.inventory, **before.inventory},
    )


def beside(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on nodes that were asked in several steps at one stage."""
    first, *rest = verdicts
    for other in rest:
        nodes, results = first.nodes | other.nodes, first.results + other.results
        first = verdict_of(nodes, results, first.inventory | other.inventory)
    return first


def pieces(text: str) -> list[str]:
    """Cut a task's output at each marker; what stands before the first one is noise."""
    return [MARKER + part for part in text.split(MARKER)[1:]]


def _placed(result: CheckResult, protocol: Protocol) -> CheckResult:
    """Return the result with what the protocol, and not the node, says of its check."""
    planned = next(check for check in protocol.checks if check.name == result.check)
    return replace(result, severity=planned.severity, stage=planned.stage)


def _claimed_name(piece: str) -> str:
    """Return the name that an answer gives, even if the rest of it is torn; empty if not even that is there."""
    match = _CLAIM.match(piece)
    return match["node"] if match else ""


def verdict_of(nodes: NodeSet, results: tuple[CheckResult, ...], inventory: dict[str, tuple[Gpu, ...]]) -> Verdict:
    """Return the verdict on `nodes` that follows from all results."""
    bad: dict[str, list[CheckResult]] = {}
    for result in results:
        if result.refuses:
            bad.setdefault(result.node, []).append(result)
    refused = tuple(Refusal(node, _reason(bad[node])) for node in nodes if node in bad)
    unknown = [node for node, found in bad.items() if all(result.status is Status.UNKNOWN for result in found)]
    return Verdict(nodes, nodes - NodeSet(bad), refused, NodeSet(unknown), results, inventory)


def _reason(results: Sequence[CheckResult]) -> str:
    """Join what failed; what could not be told matters only where nothing failed."""
    failed = [result for result in results if result.status is Status.FAIL]
    return "; ".join(
        each.reason if each.check == ANSWER else f"{each.check}: {each.reason}" for each in failed or results
    )


def _answer(node: str, said: Sequence[str], protocol: Protocol, silence: str) -> Answer:
    """Read the one answer given under the name of `node`; Unusable says why there is none to trust."""
    if not said:
        raise Unusable(f"no answer: {silence}" if silence else "no answer")
    if len(said) > 1:
        raise Unusable(f"{len(said)} answers under its name")
    try:
        value, _ = json.JSONDecoder().raw_decode(said[0])
    except ValueError as error:
        raise Unusable("its answer is torn") from error
    answer = _parsed(value)
    if answer.node != node:
        raise Unusable(f'its answer is contradictory: it also names "{answer.node}"')
    _complete(answer, protocol)
    return answer


def _parsed(value: dict[str, Any]) -> Answer:
    if value.get("piolet_vet") != VERSION:
        raise Unusable(f"its answer has version {value.get('piolet_vet')}; this is version {VERSION}")
    try:
        node = str(value["node"])
        results = tuple(CheckResult(**(each | {"status": Status(each["status"])})) for each in value["checks"])
        gpus = tuple(Gpu(**each) for each in value["gpus"])
    except (KeyError, TypeError, ValueError) as error:
        raise Unusable(f"its answer cannot be read: {type(error).__name__}: {error}") from error
    return Answer(node, results, gpus)


def _complete(answer: Answer, protocol: Protocol) -> None:
    wanted = sorted(check.name for check in protocol.checks)
    if sorted(result.check for result in answer.results) != wanted:
        raise Unusable("its answer does not hold one result of each check")
    if any(result.node != answer.node for result in answer.results):
        raise Unusable("its answer holds results of another node")
