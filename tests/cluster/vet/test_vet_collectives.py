"""All-reduce between the nodes of a real cluster: measured over gloo, and unknown wherever it cannot be."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

PIOLET = (sys.executable, "-m", "piolet")
[TORCH] = (Path(__file__).parents[3] / ".venv-torch/lib").glob("python*/site-packages")

LISTING = """
name: "ML Training Node Vetting"
evals:
- name: "Check GPU"
  type: vetnode.evaluations.gpu_eval.GPUEval
  max_temp: 30
  max_used_memory: 0.2
- name: "NCCLBandwidth"
  type: vetnode.evaluations.nccl_eval.NCCLEval
  min_bandwidth: 90.0
  requirements:
  - torch
- name: "CudaKernel"
  type: vetnode.evaluations.cuda_eval.CUDAEval
  requirements:
  - cuda-python
  - numpy
"""


@pytest.fixture
def vet(on_lab: Callable, tmp_path: Path) -> Callable:
    """Vet 3 nodes by a protocol; gives the verdict and the exit status."""
    tmp_path.chmod(0o755)

    def run(protocol: str, *, gpus: int = 0, torch: bool = True, before: str = "true") -> tuple[dict, int]:
        path = tmp_path / "protocol.yaml"
        path.write_text(protocol, encoding="utf-8")
        hold = ("salloc", "--quiet", "--nodelist=node[1-3]", *([f"--gpus-per-node={gpus}"] if gpus else []))
        command = (*PIOLET, "vet", "run", "--protocol", str(path), "--format", "json")
        environment = {"PYTHONPATH": str(TORCH)} if torch else {}
        shell = ("sh", "-c", f'{before}; exec "$@"', "sh")
        done = on_lab(*hold, *shell, *command, env=environment, check=False, timeout=150)
        assert done.stdout, done.stderr
        return json.loads(done.stdout), done.returncode

    return run


def test_nodes_reduce_together_and_tell_one_bandwidth(vet):
    verdict, status_code = vet("evals:\n- {type: all_reduce, sizes_mib: [1, 2], min_gb_per_s: 0.000001}\n")

    assert (status_code, verdict["ready"]) == (0, "node[1-3]"), verdict
    assert all(each["reason"].startswith("3 ranks on 3 nodes (gloo): ") for each in verdict["checks"])
    assert all(each["value"] > 0 and each["unit"] == "GB/s" for each in verdict["checks"])


def test_a_bandwidth_that_no_network_has_fails_on_all_nodes(vet):
    verdict, status_code = vet(
        "evals:\n- {type: all_reduce, scope: internode, sizes_mib: [1], min_gb_per_s: 1000000, severity: warning}\n"
    )

    assert status_code == 0, "only an error is traced, which takes some rounds more"
    assert {each["status"] for each in verdict["checks"]} == {"fail"}
    assert {each["threshold"] for each in verdict["checks"]} == {1e6}


ABSENT = {
    "node1": "the first rank, on node1 (127.0.0.1:",
    "node2": "no rank of node2 came within 14 s",
}


@pytest.mark.parametrize("absent", ["node1", pytest.param("node2", marks=pytest.mark.slow)])
def test_one_rank_that_never_comes_is_named_by_all_others_and_nobody_waits_for_ever(vet, tmp_path, absent):
    """The rank of one node sleeps before it begins."""
    early = tmp_path / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        f"if os.environ.get('SLURMD_NODENAME') == '{absent}' and 'piolet.vet.collective' in sys.orig_argv:\n"
        "    time.sleep(100)\n",
        encoding="utf-8",
    )
    early.chmod(0o755)

    verdict, _ = vet(
        "evals:\n- {type: all_reduce, sizes_mib: [1], timeout: 30, severity: warning}\n",
        before=f"export PYTHONPATH={early}{os.pathsep}{TORCH}",
    )

    reasons = {each["node"]: each["reason"] for each in verdict["checks"]}
    assert {each["status"] for each in verdict["checks"]} == {"unknown"}
    assert reasons.pop(absent) == f"rank {int(absent[-1]) - 1} ended without an answer"
    assert all(reason.startswith(ABSENT[absent]) for reason in reasons.values())


def test_a_published_file_runs_unchanged_and_is_unknown_where_torch_has_no_gpu(vet):
    verdict, status_code = vet(LISTING, gpus=4)

    said = {each["reason"] for each in verdict["checks"] if each["check"] == "NCCLBandwidth"}
    assert status_code == 1, "the simulated GPUs are warmer than 30 °C"
    assert len(verdict["checks"]) == 12
    assert said == {"torch sees 0 of 4 allocated GPUs"}


def test_a_published_file_runs_unchanged_and_is_unknown_without_torch(vet):
    verdict, status_code = vet(LISTING, gpus=4, torch=False)

    said = {(each["reason"], each["remedy"]) for each in verdict["checks"] if each["check"] == "NCCLBandwidth"}
    assert status_code == 1
    assert said == {
        (
            "it requires torch, not installed here",
            "install torch where the nodes see it; vetting never installs anything",
        )
    }


FAKE = """
import os
from dataclasses import dataclass
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Status
from piolet.vet.check import Check, Judgement

@dataclass(frozen=True)
class Parameters:
    groups: tuple[str, ...] = ()

def observe(parameters, context):
    here = context.environ["SLURMD_NODENAME"]
    groups = [*map(NodeSet, parameters.groups), NodeSet(context.environ["SLURM_STEP_NODELIST"])]
    return next(group for group in groups if here in group)

def judge(group, parameters):
    bad = "BAD" in group
    return Judgement(Status.FAIL if bad else Status.PASS, f"{len(group)} together", 1.0 if bad else 90.0, 50.0, "GB/s")

CHECK = Check("fake", 1, "", "", Parameters, observe, judge, quiet=True, collective=lambda _: True)
"""
ASKING = """
import json, os
from piolet import vet
from piolet.core.nodeset import NodeSet
from piolet.vet.protocol import PlannedCheck, Protocol

check = PlannedCheck("together", "fake", "fake:CHECK", {"groups": ()}, quiet=True, collective=True)
verdict = vet.vet_nodes(NodeSet(os.environ["SLURM_JOB_NODELIST"]), Protocol("p", (check,)))
print(json.dumps([str(verdict.ready), str(verdict.unknown), [each._asdict() for each in verdict.refused]]))
"""


@pytest.mark.parametrize(
    ("nodes", "verdict", "reason"),
    [
        ("node[1-5]", ["node[1-3,5]", ""], "traced to this node: bad with 3 of 3 good nodes (confidence 0.80)"),
        ("node[4-5]", ["", "node[4-5]"], "2 nodes are too few to tell which it is"),
    ],
)
def test_a_collective_that_fails_is_traced_to_the_node(on_lab, tmp_path, nodes, verdict, reason):
    tmp_path.chmod(0o755)
    (tmp_path / "fake.py").write_text(FAKE.replace("BAD", "node4"), encoding="utf-8")
    hold = ("salloc", "--quiet", f"--nodelist={nodes}")

    done = on_lab(*hold, sys.executable, "-c", ASKING, env={"PYTHONPATH": str(tmp_path)}, timeout=150)

    found = json.loads(done.stdout)
    assert found[:2] == verdict
    assert all(reason in refusal["reason"] for refusal in found[2])
    assert found[2]


SLOW = """
import os, sys
if os.environ.get("SLURMD_NODENAME") == "node2" and "piolet.vet.collective" in sys.orig_argv:
    import threading, time
    def slow_down():
        while "torch.distributed" not in sys.modules or not hasattr(sys.modules["torch.distributed"], "all_reduce"):
            time.sleep(0.01)
        time.sleep(0.5)
        dist = sys.modules["torch.distributed"]
        quick = dist.all_reduce
        dist.all_reduce = lambda *given, **named: (time.sleep(0.7), quick(*given, **named))[1]
    threading.Thread(target=slow_down, daemon=True).start()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_slow_node_is_traced_by_real_collectives(on_lab, tmp_path):
    tmp_path.chmod(0o755)
    early = tmp_path / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(SLOW, encoding="utf-8")
    path = tmp_path / "protocol.yaml"
    path.write_text("evals:\n- {type: all_reduce, sizes_mib: [1], min_gb_per_s: 0.005, warmup: 2, repetitions: 3}\n")
    command = (*PIOLET, "vet", "run", "--protocol", str(path), "--format", "json")

    done = on_lab("salloc", "--quiet", "--nodelist=node[1-4]", *command, check=False, timeout=580,
                  env={"PYTHONPATH": f"{early}{os.pathsep}{TORCH}"})  # fmt: skip

    verdict = json.loads(done.stdout)
    assert (verdict["ready"], [each["node"] for each in verdict["refused"]]) == ("node[1,3-4]", ["node2"]), verdict
    assert "traced to this node" in verdict["refused"][0]["reason"]
