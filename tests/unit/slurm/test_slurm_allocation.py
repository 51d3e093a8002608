from __future__ import annotations

import pytest

from piolet.core.errors import ParseError
from piolet.core.nodeset import NodeSet
from piolet.tools.slurm import allocation

BATCH = {
    "SLURM_JOB_ID": "22",
    "SLURM_JOB_NODELIST": "node[1-2,4]",
    "SLURM_JOB_GPUS": "0,1",
    "SLURM_JOB_PARTITION": "main",
    "SLURM_CLUSTER_NAME": "alpine",
    "SLURMD_NODENAME": "node1",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
}
TASK = BATCH | {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_GPUS": "1",
    "SLURMD_NODENAME": "node2",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "2",
    "SLURM_NTASKS": "6",
}


def test_outside_of_slurm_there_is_none() -> None:
    assert allocation.from_environ({"PATH": "/bin"}) is None
    assert allocation.from_environ({"SLURM_JOB_ID": ""}) is None
    assert allocation.from_environ({"SLURM_CONF": "/etc/slurm.conf"}) is None


def test_in_a_batch_script() -> None:
    here = allocation.from_environ(BATCH)
    assert here
    assert (here.job, here.cluster, here.partition, here.step) == (22, "alpine", "main", None)
    assert here.nodes == here.step_nodes == NodeSet("node[1-2,4]")
    assert (here.node, here.node_index, here.rank, here.ntasks) == ("node1", 0, 0, 1)
    assert here.gpus == here.job_gpus == (0, 1)


def test_in_a_task_of_a_step_on_fewer_nodes_and_gpus() -> None:
    here = allocation.from_environ(TASK)
    assert here
    assert here.nodes == NodeSet("node[1-2,4]")
    assert here.step_nodes == NodeSet("node[1-2]")
    assert (here.step, here.node, here.node_index, here.rank, here.local_rank, here.ntasks) == (
        "0",
        "node2",
        1,
        5,
        2,
        6,
    )
    assert here.gpus == (1,)


HET = {
    "SLURM_JOB_ID": "30",
    "SLURM_HET_SIZE": "2",
    "SLURM_JOB_NODELIST": "node1",
    "SLURM_JOB_GPUS": "0,1,2,3",
    "SLURM_CPUS_ON_NODE": "8",
    "SLURMD_NODENAME": "node1",
    "SLURM_CLUSTER_NAME": "alpine",
    "SLURM_JOB_ID_HET_GROUP_0": "30",
    "SLURM_JOB_NODELIST_HET_GROUP_0": "node1",
    "SLURM_JOB_ID_HET_GROUP_1": "31",
    "SLURM_JOB_NODELIST_HET_GROUP_1": "node[2-3]",
}


@pytest.mark.parametrize(
    ("group", "job", "nodes", "node", "gpus"), [(0, 30, "node1", "node1", (0, 1, 2, 3)), (1, 31, "node[2-3]", "", None)]
)
def test_in_a_component_of_a_heterogeneous_job(group, job, nodes, node, gpus) -> None:
    here = allocation.from_environ(allocation.of_component(HET, group))
    assert here
    assert (here.job, here.nodes, here.cluster) == (job, NodeSet(nodes), "alpine")
    assert (here.node, here.job_gpus) == (node, gpus), "what concerns this node alone is no other component's"


def test_in_an_array_and_without_gpus() -> None:
    without = {name: value for name, value in BATCH.items() if name != "SLURM_JOB_GPUS"}
    here = allocation.from_environ(without | {"SLURM_ARRAY_JOB_ID": "20", "SLURM_ARRAY_TASK_ID": "0"})
    assert here
    assert (here.array_job, here.array_task) == (20, 0)
    assert here.gpus is None


@pytest.mark.parametrize(
    ("name", "value"), [("SLURM_JOB_ID", "x"), ("SLURM_JOB_GPUS", "GPU-1"), ("SLURM_JOB_NODELIST", "node[")]
)
def test_values_that_slurm_does_not_write_are_parse_errors(name, value) -> None:
    with pytest.raises(ParseError):
        allocation.from_environ(BATCH | {name: value})
