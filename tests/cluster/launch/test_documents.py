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


def test_the_first_climb_runs_as_it_stands(piolet_run):
    assert piolet_run.document("docs/guides/first-climb.md").stdout.count("piolet: completed") == 1
    [logbook] = piolet_run.logbooks
    assert (logbook / "report.html").is_file()


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
