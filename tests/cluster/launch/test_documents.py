"""What the documents tell people to type works as it stands there."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from piolet.lab import down

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

CHECKOUT = Path(__file__).resolve().parents[3]


def commands_of(name):
    """The fenced commands of a document, without those that wait for a person."""
    blocks = re.findall(r"^```\n(.*?)^```", (CHECKOUT / name).read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for line in "".join(blocks).splitlines() if re.match(r"(export|[A-Z_]+=\S+ piolet|piolet) ", line)]
    return [line for line in lines if "lab shell" not in line]


@pytest.mark.parametrize(("name", "runs"), [("examples/README.md", 2), ("docs/guides/first-climb.md", 1)])
def test_the_commands_of_a_document_run(on_lab, user, root, name, runs):
    commands = commands_of(name)
    assert sum("piolet run" in command for command in commands) == runs
    script = "set -e\n" + "\n".join(commands)
    done = on_lab(
        "sh", "-c", script, user=user, cwd=CHECKOUT, env={"PIOLET_ROOT": str(root), "PWD": str(CHECKOUT)}, timeout=200
    )
    assert done.stdout.count("piolet: completed") == runs
    assert len(list(root.glob("*/*/report.html"))) == runs


def demo(root, *, environment, **identity):
    return subprocess.run(
        [CHECKOUT / "scripts" / "demo"],
        check=False,
        capture_output=True,
        env=environment | {"PIOLET_ROOT": str(root)},
        text=True,
        timeout=120,
        **identity,
    )


def report_of(done):
    return Path(re.findall(r"^piolet: report +(\S+)$", done.stdout + done.stderr, flags=re.MULTILINE)[-1])


@pytest.mark.usefixtures("machine")
def test_the_demo_refuses_node2_trains_and_ends_with_the_report(root):
    labs = Path(tempfile.mkdtemp(prefix="piolet-test-", dir="/var/tmp"))
    labs.chmod(0o755)
    try:
        done = demo(root, environment=os.environ | {"PIOLET_LAB_DIRECTORY": str(labs)})
        assert done.returncode == 0, done.stderr
        assert "node2 is refused: " in done.stdout
        assert "accuracy" in done.stdout
        assert report_of(done).is_file()
    finally:
        down("lab", labs)
        labs.rmdir()


def test_the_demo_of_an_ordinary_user_says_what_is_missing_and_trains_here(on_lab, root, user):
    done = demo(root, environment=on_lab.environment(user), user=user, group=user, extra_groups=[])
    assert done.returncode == 0, done.stderr
    assert "missing here: root" in done.stdout
    assert "accuracy" in done.stdout
    assert report_of(done).is_file()
