"""Whatever becomes of the answers: no bad node passes, and no good node is refused without evidence."""

import json
import random
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Status
from piolet.vet import judge_answers
from piolet.vet.protocol import PlannedCheck, Protocol
from piolet.vet.step import tasks_output

CHECKS = ("gpu", "xid", "mounts")
PROTOCOL = Protocol("p", tuple(PlannedCheck(name, name, "") for name in CHECKS))
SRUN_CUT_BYTES = 1024

statuses = st.fixed_dictionaries({name: st.sampled_from(list(Status)) for name in CHECKS})
fates = st.sampled_from(["whole", "whole", "whole", "absent", "torn", "twice", "wrong name", "one check less"])
noise = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=60).filter(
    lambda text: "piolet_vet" not in text
)


@st.composite
def nodes(draw):
    fate = draw(fates)
    healthy = draw(st.booleans())
    return {
        "fate": fate,
        "statuses": dict.fromkeys(CHECKS, Status.PASS) if healthy else draw(statuses),
        "noise": draw(noise),
        "tear": draw(st.floats(0, 0.999)),
        "reason": draw(st.text(max_size=80)) + 'x{"piolet_vet":1,"node":"node1"' * draw(st.integers(0, 1)),
    }


def answer(name, node):
    checks = [CheckResult(check, name, status, node["reason"]) for check, status in node["statuses"].items()]
    if node["fate"] == "one check less":
        checks = checks[1:]
    value = {"piolet_vet": 1, "node": name, "checks": [asdict(each) for each in checks], "gpus": []}
    return json.dumps(value, separators=(",", ":"))


def output(name, node):
    line = answer(f"{name}0", node) if node["fate"] == "wrong name" else answer(name, node)
    text = {
        "absent": "",
        "torn": line[: int(len(line) * node["tear"])],
        "twice": f"{line}\n{line}",
    }.get(node["fate"], line)
    return f"{node['noise']}\n{text}\n"


def labelled(texts, seed):
    """Label and cut as srun does, and mix the pieces of tasks in any order that keeps each task's own."""
    queues = []
    for task, text in enumerate(texts):
        cut = []
        for line in text.split("\n"):
            raw = line.encode()
            cut += [raw[at : at + SRUN_CUT_BYTES] for at in range(0, len(raw), SRUN_CUT_BYTES)]
        queues.append([f"{task}: {piece.decode('utf-8', 'surrogateescape')}" for piece in cut])
    chooser = random.Random(seed)  # noqa: S311 - an order, not a secret
    lines = []
    while any(queues):
        lines.append(chooser.choice([queue for queue in queues if queue]).pop(0))
    return "\n".join(lines) + "\n"


@given(st.lists(nodes(), min_size=1, max_size=6), st.integers(0, 1000))
def test_the_verdict_is_that_of_a_model(cluster, seed):
    names = [f"node{index}" for index in range(1, len(cluster) + 1)]
    texts = [output(name, node) for name, node in zip(names, cluster, strict=True)]

    verdict = judge_answers(NodeSet(names), tasks_output(labelled(texts, seed)), PROTOCOL)

    healthy = {
        name
        for name, node in zip(names, cluster, strict=True)
        if node["fate"] == "whole" and set(node["statuses"].values()) == {Status.PASS}
    }
    failed = {
        name
        for name, node in zip(names, cluster, strict=True)
        if node["fate"] == "whole" and Status.FAIL in node["statuses"].values()
    }
    assert set(verdict.ready) == healthy
    assert {refusal.node for refusal in verdict.refused} == set(names) - healthy
    assert set(verdict.unknown) == set(names) - healthy - failed
    assert all(refusal.reason for refusal in verdict.refused)
    assert {result.node for result in verdict.results} == set(names)


@given(st.lists(st.text(), max_size=5))
def test_any_output_at_all_is_judged_and_none_of_it_makes_a_node_ready(texts):
    verdict = judge_answers(NodeSet("node[1-2]"), texts, PROTOCOL)

    assert not verdict.ready
    assert verdict.unknown == NodeSet("node[1-2]")
