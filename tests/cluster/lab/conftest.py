"""What must be the same before and after a lab: processes, mounts, links, cgroups and files."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piolet.lab.directory import short_digest


def _traces(directory: Path) -> dict[str, list[str]]:
    """Return everything on this machine that names the lab in `directory`."""
    digest = short_digest(directory)
    return {
        "processes": [path.name for path in Path("/proc").glob("[0-9]*") if _belongs(path, directory)],
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(directory) in line],
        "links": [path.name for path in Path("/sys/class/net").iterdir() if digest in path.name],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/piolet-{digest}")],
        "files": [str(path) for path in (directory, *Path("/run").glob(f"*{directory.name}*")) if path.exists()],
    }


def _belongs(process: Path, directory: Path) -> bool:
    """Tell whether a live process was started by the lab, runs from its files or has one of its mounts."""
    try:
        if ") Z" in (process / "stat").read_text():
            return False
        named = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        mounts = (process / "mountinfo").read_bytes()
    except OSError:
        return False
    name = bytes(directory)
    return b"PIOLET_LAB=" + name + b"\0" in named or name + b"/nodes/" in mounts


@pytest.fixture
def assert_no_trace() -> Callable[[Path], None]:
    """Assert that nothing of a lab is left; the kernel removes a dead namespace's links a moment later."""

    def check(directory: Path) -> None:
        deadline = time.monotonic() + 3
        while any(left := _traces(directory).values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(left), _traces(directory)

    return check


@pytest.fixture(scope="session")
def labs() -> Iterator[Path]:
    """A directory for labs that ordinary users may enter, as /var/lib is and pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="piolet-labs-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def mount(labs: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs with the options of the caller; unmounted after the test."""
    target = Path(tempfile.mkdtemp(dir=labs))

    def mounted(options: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "none", target], check=True)
        return target

    yield mounted
    subprocess.run(["umount", target], check=True)
    target.rmdir()
