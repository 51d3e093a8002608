"""The batch script: readable, quoted, and accepted by bash."""

import shlex
from pathlib import Path

import pytest

from piolet.core.errors import UsageError
from piolet.core.run import SystemRunner
from piolet.launch import batch
from piolet.launch.request import RunRequest, check


def made(**changes):
    fields = {"command": ("python", "train.py"), "nodes": 4, "spares": 1, "protocol": "quick", "cwd": Path("/home/a b")}
    return RunRequest(**(fields | changes))


def text(request, plan=None, gpus=4):
    return batch.script(request, plan=plan, gpus_per_node=gpus, output=Path("/logs/%j.log"))


def test_it_holds_the_spares_and_says_so():
    script = text(made())
    assert "#SBATCH --nodes=5" in script
    assert "4 nodes and 1 spare" in script
    assert "#SBATCH --gpus-per-node=4" in script


def test_no_gpus_no_option():
    assert "gpus-per-node" not in text(made(), gpus=0)


def test_bash_accepts_it_and_the_command_keeps_its_quoting(tmp_path):
    command = ("python", "-c", "print('a  b', \"$HOME\")", "x;y", "")
    script = text(made(command=command, record=True), plan=Path("/plans/a b.plan"))
    path = tmp_path / "job.sh"
    path.write_text(script)
    SystemRunner().run(["bash", "-n", str(path)], timeout=10)
    body = script[script.index("exec ") :].replace("\\\n", " ")
    words = shlex.split(body)
    assert tuple(words[words.index("--") + 1 :]) == command
    assert words[words.index("--env") + 1] == "/plans/a b.plan"
    assert "--record" in words


@pytest.mark.parametrize(
    "changes",
    [{"command": ()}, {"nodes": 0}, {"tasks_per_node": 0}, {"spares": -1}, {"spares": 1, "protocol": ""}],
)
def test_a_senseless_request_is_refused_with_a_remedy(changes):
    with pytest.raises(UsageError) as refusal:
        check(made(**changes))
    assert refusal.value.remedy


def test_the_job_is_named_after_the_script():
    assert made().job_name == "train.py"
    assert made(command=("/opt/bin/solver", "-x")).job_name == "solver"
    assert made(name="mine").job_name == "mine"
