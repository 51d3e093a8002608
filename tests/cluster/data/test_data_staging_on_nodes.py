"""Staging on sixteen nodes of a real cluster: one is killed half-way, and all others have every byte."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piolet.lab import Lab, Spec, up

pytestmark = pytest.mark.cluster

PIOLET = (sys.executable, "-m", "piolet", "data")
NODES = 16
KILLED = "node7"
MEMORY = "/dev/shm"  # noqa: S108 - each node's own
TARGET = f"{MEMORY}/staged.bin"

DIES_HALF_WAY = f"""
import os, signal, sys
if os.environ.get("SLURMD_NODENAME") == "{KILLED}" and "piolet.data.staging.node" in sys.orig_argv:
    from piolet.data.staging.store import Store
    add = Store.add
    def dying(self, piece):
        add(self, piece)
        if 2 * self.count >= self.tree.pieces:
            os.kill(os.getpid(), signal.SIGKILL)
    Store.add = dying
"""


@pytest.fixture(scope="module")
def sixteen(machine: None) -> Iterator[Lab]:  # noqa: ARG001 - a fixture for its effect
    """A lab of 16 nodes."""
    lab = up(Spec(name=f"test-{secrets.token_hex(4)}", nodes=NODES, gpus=1))
    yield lab
    lab.down()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user and node sees."""
    with tempfile.TemporaryDirectory(prefix="piolet-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def within_job(sixteen: Lab, commands_on: Callable, user: str) -> Callable:
    """Run a shell script within a job on all nodes, or on the first ones, as an ordinary user."""

    def run(script: str, nodes: int = NODES, **env: str):
        hold = ("salloc", "--quiet", f"--nodelist=node[1-{nodes}]", f"--nodes={nodes}", "sh", "-c", script)
        return commands_on(sixteen)(*hold, user=user, env=env, check=False, timeout=200)

    return run


def test_one_node_of_sixteen_is_killed_half_way_and_all_others_have_it(within_job, place):
    source = place / "source.bin"
    source.write_bytes(os.urandom(8 << 20))
    (place / "sitecustomize.py").write_text(DIES_HALF_WAY, encoding="utf-8")
    command = " ".join((*PIOLET, "stage", "--chain", str(source), TARGET, "--format", "json"))
    after = f"srun sha256sum {TARGET} 2>/dev/null; {' '.join((*PIOLET, 'unstage', TARGET))}; srun ls -A {MEMORY}"

    done = within_job(f"{command}; echo status=$?; {after}", PYTHONPATH=str(place))

    said, _, rest = done.stdout.partition("status=")
    outcome = json.loads(said)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert rest.startswith("1\n"), "not every node has it"
    assert outcome["lost"].keys() == {KILLED}, done.stderr
    assert outcome["there"] == "node[1-6,8-16]"
    assert rest.count(f"{digest}  {TARGET}") == NODES - 1
    assert list(outcome["went_around"]) == ["node8"], "who came after the dead node asked the one before it"
    assert outcome["went_around"]["node8"][0].startswith(f"{KILLED}: ")
    assert "staged" not in rest.rpartition(TARGET)[2], "unstage leaves nothing, and takes what the dead node left"


def test_measured_reused_and_refused(within_job, place):
    source = place / "source.bin"
    source.write_bytes(os.urandom(65 << 20))
    stage = " ".join((*PIOLET, "stage", str(source), TARGET))
    other = f"{MEMORY}/other"
    again = f"{stage} --format json"
    refused = " ".join((*PIOLET, "stage", str(source), other))

    script = f"{stage} && srun --nodes 1 --ntasks 1 rm {TARGET} && {again}; srun touch {other}; {refused}"
    done = within_job(script, nodes=3)

    first, _, second = done.stdout.partition("{")
    assert "3 nodes reading at once get" in first, done.stderr
    outcome = json.loads("{" + second)
    assert (outcome["there"], outcome["lost"]) == ("node[1-3]", {})
    assert outcome["reused"] in {"node[2-3]", "node[1,3]", "node[1-2]"}
    assert outcome["choice"]["reason"] == "a node has it already, and passes it on"
    assert f"{other} is there, and was not staged by piolet (and 2 more nodes)" in done.stderr
    assert "nothing was written" in done.stderr
