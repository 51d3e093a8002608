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


def test_a_bandwidth_that_no_network_has_refuses_all_nodes(vet):
    verdict, status_code = vet(
        "evals:\n- {type: all_reduce, scope: internode, sizes_mib: [1], min_gb_per_s: 1000000}\n"
    )

    assert (status_code, verdict["ready"], verdict["unknown"]) == (1, "", "")
    assert {each["threshold"] for each in verdict["checks"]} == {1e6}


ABSENT = {
    "node1": "the first rank, on node1 (127.0.0.1:",
    "node2": "no rank of node2 came within 14 s",
}


@pytest.mark.parametrize("absent", ABSENT)
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

    verdict, status_code = vet(
        "evals:\n- {type: all_reduce, sizes_mib: [1], timeout: 30}\n",
        before=f"export PYTHONPATH={early}{os.pathsep}{TORCH}",
    )

    reasons = {each["node"]: each["reason"] for each in verdict["checks"]}
    assert (status_code, verdict["unknown"]) == (3, "node[1-3]")
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
