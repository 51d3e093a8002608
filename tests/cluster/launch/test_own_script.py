"""The pattern of docs/reference/run.md for scripts of one's own, run as it stands there, on fewer nodes."""

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


def test_it_works_in_the_tasks_of_an_array(piolet_run, root):
    done = submitted(piolet_run, root, "--array=1-2%1", f"--output={root}/out-%a")

    assert done.returncode == 0
    assert all(len((root / f"out-{task}").read_text().split()) == 2 for task in (1, 2))
