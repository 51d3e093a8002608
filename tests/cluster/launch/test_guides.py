"""The commands of the guides work as they stand there: every block marked `sh` is run, in the order of the page."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

from piolet.lab import down

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

CHECKOUT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
SH = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"guides/lab.md", "guides/operators.md", "operate/installation.md"}

AFTER_A_RUN = {"guides/investigators.md"}


def script(page):
    return "set -e\n" + "".join(SH.findall((CHECKOUT / "docs" / page).read_text()))


def pages_on_a_lab():
    docs = CHECKOUT / "docs"
    found = {str(page.relative_to(docs)) for page in docs.rglob("*.md") if SH.search(page.read_text())}
    assert found > ELSEWHERE
    return sorted(found - ELSEWHERE)


@pytest.fixture
def desk(user):
    """A directory of the user's with the examples and all else that the pages name, to write beside them."""
    directory = Path(tempfile.mkdtemp(prefix="piolet-desk-", dir="/var/tmp"))
    shutil.copytree(CHECKOUT / "examples", directory / "examples")  # what is in the directory is in its containers
    for name in ("README.md", "src", ".images"):
        (directory / name).symlink_to(CHECKOUT / name)
    shutil.chown(directory, user)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("page", pages_on_a_lab())
def test_the_commands_of_a_page_work(page, on_lab, user, piolet_run, desk):
    if page in AFTER_A_RUN:
        piolet_run("-N", "1", "--record", "--", "sleep", "3")
    env = {"PIOLET_ROOT": str(piolet_run.root), "PWD": str(desk), "PATH": f"{BIN}:{os.environ['PATH']}"}
    on_lab("sh", "-c", script(page), user=user, cwd=desk, env=env, timeout=200)


@pytest.mark.usefixtures("machine")
def test_the_operators_guide_refuses_and_explains_node2(tmp_path):
    labs = Path(tempfile.mkdtemp(prefix="piolet-test-", dir="/var/tmp"))
    labs.chmod(0o755)
    environment = os.environ | {"PIOLET_LAB_DIRECTORY": str(labs), "PATH": f"{BIN}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            ["sh", "-c", script("guides/operators.md")],
            check=False,
            capture_output=True,
            cwd=tmp_path,
            env=environment,
            text=True,
            timeout=200,
        )
    finally:
        down("lab", labs)
        labs.rmdir()
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"node2 .*Xid", done.stdout)


def test_the_installation_puts_the_package_and_its_c_parts_into_a_new_environment(tmp_path):
    there = tmp_path / "piolet"
    commands = script("operate/installation.md").replace("/opt/piolet", str(there))
    without_network = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PYTHONPATH": sysconfig.get_path("purelib"),
    }
    done = subprocess.run(
        ["sh", "-c", commands],
        check=False,
        capture_output=True,
        cwd=CHECKOUT,
        env=os.environ | without_network,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("piolet, version ")
    assert {path.name for path in there.rglob("_native/*")} >= {"piolet-enter", "spank_piolet.so"}
