"""The guard as a check of vetting, on nodes of a real cluster: a server without a key and memory left on a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from piolet.lab.gpus import clear, inject, parse_faults

pytestmark = pytest.mark.cluster

PIOLET = f"{sys.executable} -m piolet"
SERVER = Path(__file__).parents[2] / "support/open_server.py"


def test_an_open_server_of_the_job_refuses_its_node_and_left_memory_is_told(on_lab, lab, tmp_path):
    protocol = tmp_path / "protocol.yaml"
    protocol.write_text('evals:\n- {type: guard, timeout: 30, declare: ["32768-60999"]}\n', encoding="utf-8")
    gpu = lab.node_directory("node1") / "gpu"
    for fault in parse_faults({"leftover_memory": "20GiB"}):
        inject(gpu, 0, fault)
    one = "srun --overlap --nodes=1 --ntasks=1"
    script = (
        f"{one} --nodelist=node2 {sys.executable} {SERVER} 0 open > {tmp_path}/port & "
        f"while [ ! -s {tmp_path}/port ]; do sleep 0.1; done; "
        f"{PIOLET} vet run --protocol {protocol} --format json"
    )
    try:
        done = on_lab("salloc", "--quiet", "--nodelist=node[1-3]", "--gpus-per-node=4", "sh", "-c", script, check=False)
    finally:
        clear(gpu, 0)

    verdict = json.loads(done.stdout)
    said = {each["node"]: each for each in verdict["checks"]}
    assert (verdict["ready"], done.returncode) == ("node[1,3]", 1), done.stderr
    assert "job/gpu-memory at node1 [GPU 0]: 21 GB of" in said["node1"]["reason"]
    assert said["node3"]["reason"] == "nothing of this job is open to others"
