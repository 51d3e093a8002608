"""Simulated GPUs inside a container of a Slurm step: the real nvidia-ml-py finds them as on a node."""

import sysconfig

import pytest

pytestmark = pytest.mark.cluster

PROBE = """
import pynvml as n
n.nvmlInit()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
print(n.nvmlSystemGetDriverVersion(), len(handles), n.nvmlDeviceGetName(handles[0]))
print(n.nvmlDeviceGetUtilizationRates(handles[2]).gpu)
"""


def in_container(run, program):
    step = ("srun", "--nodes=1", "--nodelist=node4", "--gpus-per-node=4", "--environment=demo")
    paths = {"PYTHONPATH": sysconfig.get_paths()["purelib"], "PWD": str(run.checkout)}
    return run.on_lab(*step, "python3", "-c", program, user=run.user, cwd=run.checkout, env=run.env | paths).stdout


def test_nvml_answers_in_a_container(piolet_run):
    driver, count, *name = in_container(piolet_run, PROBE).splitlines()[0].split()
    assert driver.endswith("-sim")
    assert count == "4"
    assert " ".join(name) == "NVIDIA H100 80GB HBM3"


def test_a_workload_script_drives_the_gpus_of_a_node(piolet_run, on_lab, lab):
    script = piolet_run.root / "script"
    script.write_text("loop forever\nhang 5\nend\n")
    on_lab(piolet_run.piolet, "lab", "workload", "--name", lab.name, "node4", script)
    try:
        busy = "import time; time.sleep(2)" + PROBE
        assert in_container(piolet_run, busy).split()[-1] == "100"
    finally:
        script.write_text("idle 1\n")
        on_lab(piolet_run.piolet, "lab", "workload", "--name", lab.name, "node4", script)
