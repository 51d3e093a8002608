"""What tests on a real Slurm cluster share: a worker's 5-node lab, an ordinary user, and ways to run commands on it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from piolet.lab import Lab, Spec, up

USER = f"piolet-test{os.environ.get('PYTEST_XDIST_WORKER', '')}"
"""Of a worker of its own: whoever ends first removes it."""

Process = subprocess.Popen[str]


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs commands with a lab's environment, as root or as an ordinary user."""

    lab: Lab

    def __call__(
        self,
        *argv: str | Path,
        user: str | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` to its end; a status other than 0 fails the test with what was said, unless `check` is off."""
        done = subprocess.run(
            [str(part) for part in argv],
            check=False,
            capture_output=True,
            cwd=cwd or "/",
            env=self.environment(user) | (env or {}),
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
            **_identity(user),
        )
        if check and done.returncode:
            pytest.fail(f"{argv} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *argv: str | Path, user: str | None = None, env: dict[str, str] | None = None) -> Process:
        """Start `argv` and return at once; its output is to be read."""
        return subprocess.Popen(
            [str(part) for part in argv],
            cwd="/",
            env=self.environment(user) | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **_identity(user),
        )

    def environment(self, user: str | None = None) -> dict[str, str]:
        """Return the environment of a login of `user` (default: root) on the lab."""
        entry = pwd.getpwnam(user or "root")
        login = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "LANG": "C.UTF-8"}
        return {"PATH": os.environ["PATH"]} | login | self.lab.environment()


def _identity(user: str | None) -> dict[str, object]:
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def machine() -> None:
    """Skip unless this machine can hold a lab."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    missing = [program for program in ("slurmctld", "slurmd", "srun", "munged") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"a lab needs Slurm; missing: {', '.join(missing)}")


@pytest.fixture(scope="session")
def lab(machine: None) -> Iterator[Lab]:  # noqa: ARG001 - a fixture for its effect
    """A lab of 5 nodes with 4 GPUs each, of this worker alone. Leave its nodes idle and its GPUs without faults."""
    lab = up(Spec(name=f"test-{secrets.token_hex(4)}", nodes=5, gpus=4))
    yield lab
    lab.down()


@pytest.fixture(scope="session")
def commands_on() -> Callable[[Lab], Commands]:
    """Make Commands for any lab."""
    return Commands


@pytest.fixture(scope="session")
def on_lab(lab: Lab) -> Commands:
    """Run a command on the shared lab: ``on_lab("srun", "-N2", "hostname", user=user)``."""
    return Commands(lab)


@pytest.fixture(scope="session")
def user(machine: None) -> Iterator[str]:  # noqa: ARG001 - a fixture for its effect
    """The name of an ordinary user with a home directory; removed after the run if it was made for it."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], check=True)
        yield USER
        subprocess.run(["userdel", "--force", "--remove", USER], check=True, capture_output=True)
    else:
        yield USER


@pytest.fixture
def root(user: str) -> Iterator[Path]:
    """A directory for logbooks that the user owns and every node sees."""
    path = Path(tempfile.mkdtemp(prefix="piolet-test-", dir="/var/tmp"))
    shutil.chown(path, user)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
