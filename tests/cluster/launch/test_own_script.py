"""The pattern of docs/reference/run.md for scripts of one's own, run as it stands there, on fewer nodes."""

import json
import re

import pytest

pytestmark = pytest.mark.cluster


def pattern(checkout, piolet):
    text = (checkout / "docs" / "reference" / "run.md").read_text(encoding="utf-8")
    block = re.search(r"(?m)(?:^    .*\n)+(?=\nIt works in the tasks)", text)[0].replace("    ", "")
    fewer = {"nodes=9": "nodes=3", "nodes=8": "nodes=2", "-n 8": "-n 2"}
    changes = fewer | {"python train.py": "hostname", "piolet ": f"{piolet} "}
    for old, new in changes.items():
        assert old in block
        block = block.replace(old, new)
    return f"#!/bin/sh\n{block}"


def submitted(run, directory, *options):
    directory.chmod(0o777)
    script = directory / "job.sh"
    script.write_text(pattern(run.checkout, run.piolet), encoding="utf-8")
    return run.on_lab("sbatch", "--wait", *options, "--nodelist=node[1-3]", script,
                      user=run.user, env=run.env, cwd=directory, check=False)  # fmt: skip


def test_the_bad_node_is_left_out(piolet_run, faulty, root):
    faulty("node1:0", "--xid", "79")

    done = submitted(piolet_run, root, f"--output={root}/out")

    assert done.returncode == 0, (root / "out").read_text()
    assert sorted((root / "out").read_text().split()[-2:]) == ["node2", "node3"]


def test_too_many_bad_nodes_end_the_job_before_the_program(piolet_run, faulty, root):
    for node in ("node1", "node2"):
        faulty(f"{node}:0", "--xid", "79")

    done = submitted(piolet_run, root, f"--output={root}/out")

    assert done.returncode == 1
    assert not (root / "good.txt").exists()


@pytest.mark.parametrize("exclusive", [True, False])
def test_it_works_in_the_tasks_of_an_array_on_nodes_of_its_own_and_on_shared_ones(piolet_run, root, exclusive):
    holds = ("sbatch", "--parsable", "--nodelist=node[1-3]", "--output=/dev/null", "--wrap", "sleep 100")
    other = "" if exclusive else piolet_run.on_lab(*holds, user=piolet_run.user, cwd=root).stdout.strip()
    try:
        options = ("--array=1-2%1", f"--output={root}/out-%a", *(("--exclusive",) if exclusive else ()))
        done = submitted(piolet_run, root, *options)
    finally:
        piolet_run.on_lab("scancel", other, check=bool(other))

    assert done.returncode == 0, (root / "out-1").read_text()
    said = [(root / f"out-{task}").read_text() for task in (1, 2)]
    assert all(len(re.findall(r"^node\d$", text, re.MULTILINE)) == 2 for text in said), said


HET = """#!/bin/sh
#SBATCH --nodes=1 --exclusive --gpus-per-node=4
#SBATCH hetjob
#SBATCH --nodes=2 --exclusive --gpus-per-node=2
{piolet} run -N 1 --spares 1 --vet quick --record --het-group 1 -- sh -c 'echo "gpus $SLURM_STEP_GPUS"'
{piolet} run -N 1 -- hostname
"""


def test_a_run_in_a_component_of_a_heterogeneous_job(piolet_run, root):
    script = root / "het.sh"
    script.write_text(HET.format(piolet=piolet_run.piolet), encoding="utf-8")

    done = piolet_run.on_lab("sbatch", "--wait", f"--output={root}/out", script,
                             user=piolet_run.user, env=piolet_run.env, cwd=root, check=False)  # fmt: skip

    said, held = (root / "out").read_text(), piolet_run.read("job.json")["allocation"]
    assert done.returncode == 2, "the second run names no component"
    assert "gpus 0,1\n" in said
    assert "this job has 2 components (0: node" in said
    assert len(held) == 2
    assert piolet_run.read("outcome.json")["state"] == "COMPLETED"


def test_a_run_in_each_task_of_an_array_has_a_logbook_of_its_own(piolet_run, root):
    wrapped = f"{piolet_run.piolet} run -N 1 --vet quick -- hostname"
    piolet_run.on_lab("sbatch", "--wait", "--array=1-2", "--exclusive", f"--output={root}/out-%a", "--wrap", wrapped,
                      user=piolet_run.user, env=piolet_run.env, cwd=root)  # fmt: skip

    outcomes = [json.loads(path.read_text())["state"] for path in root.glob("*/*/outcome.json")]
    assert outcomes == ["COMPLETED", "COMPLETED"]
