"""Checks that say that they are light find on a bare Python what they find in an ordinary one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from piolet.vet.catalogue import all_checks

LIGHT = sorted(check.name for check in all_checks()[0] if check.light)
NEEDED = {
    "environment": ", expected: {HOME: null, NOWHERE: null}",
    "gpu_temperature": ", below_celsius: 60",
    "mounts": ", paths: [/, /nowhere]",
    "disk": ", paths: [/, /nowhere]",
}
EVERYTHING = "evals:\n" + "".join(f"- {{type: {name}{NEEDED.get(name, '')}}}\n" for name in LIGHT)
FAULTS = {"xid": 119, "throttle": "thermal", "nvlink_down": 4, "pcie_width": 4, "remap": "failed", "temp": 95}


@pytest.mark.parametrize("faults", [{"clear": True}, FAULTS])
def test_the_same_is_found_as_in_an_ordinary_python(simulated_node, faults):
    node = simulated_node()
    node.fault(**faults)

    light, ordinary = (told(node.checks(EVERYTHING, ordinary=each)) for each in (False, True))

    assert light == ordinary
    assert len(light) == len(LIGHT) >= 11
    assert {each["status"] for each in light} == {"pass", "fail"}


def told(results):
    return [{name: value for name, value in each.items() if name not in {"duration_s", "time_ns"}} for each in results]


PROGRAM = """
import sys
from piolet.vet import light
light.install()
from dataclasses import dataclass, field, replace, asdict
from enum import StrEnum
from pathlib import Path
import re

@dataclass(frozen=True, slots=True)
class Node:
    name: str
    gpus: list = field(default_factory=list)
    state: str = "idle"

class State(StrEnum):
    IDLE = "idle"
    DOWN = "down"

def raises(kind, call):
    try:
        call()
    except kind:
        return True
    return False

one = Node("n1")
assert asdict(replace(one, state="down")) == {"name": "n1", "gpus": [], "state": "down"}
assert one == Node("n1", []) != Node("n2") and one.gpus is not Node("n1").gpus
assert repr(one) == "Node(name='n1', gpus=[], state='idle')"
assert all(raises(TypeError, lambda: Node(*given)) for given in ((), ("n1", [], "idle", "too many")))
assert raises(TypeError, lambda: Node("n1", colour="red"))
assert State("down") is State.DOWN and list(State) == ["idle", "down"] and raises(ValueError, lambda: State("up"))
assert f"{State.IDLE}" == "idle"

digits = re.compile("[0-9]+")
assert not hasattr(sys.modules["re"], "Pattern")
assert digits.fullmatch("12")[0] == "12" and digits.sub("x", "a1") == "ax"
assert hasattr(sys.modules.get("re"), "Pattern") and "piolet" not in getattr(Path("a/b"), "name")
import dataclasses, enum, typing
assert all(hasattr(module, "__file__") for module in (dataclasses, enum, typing))
"""


def test_stand_ins_do_what_ours_needs_of_them_and_make_way_once_a_module_is_needed():
    done = subprocess.run([sys.executable, "-S", "-P", "-c", f"import sys; sys.path[:] = {sys.path}\n{PROGRAM}"],
                          capture_output=True, text=True, check=False)  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
