"""Running `piolet run` on the lab as an ordinary user, with a logbook root of its own."""

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
PIOLET = Path(sys.executable).parent / "piolet"


@dataclass(frozen=True)
class PioletRun:
    """Calls `piolet run` and finds the logbook that it made."""

    on_lab: object
    user: str
    root: Path
    checkout: Path = CHECKOUT
    piolet: Path = PIOLET

    def __call__(self, *arguments, check=True, timeout=120, env=None):
        return self.on_lab(
            PIOLET,
            "run",
            *arguments,
            user=self.user,
            cwd=CHECKOUT,
            env=self.env | (env or {}),
            check=check,
            timeout=timeout,
        )

    def document(self, name):
        """Run the commands of a document."""
        script = "set -e\n" + "\n".join(commands_of(name))
        env = {"PIOLET_ROOT": str(self.root), "PWD": str(CHECKOUT)}
        return self.on_lab("sh", "-c", script, user=self.user, cwd=CHECKOUT, env=env, timeout=200)

    @property
    def env(self):
        return {
            "EDF_PATH": str(CHECKOUT / "examples" / "environments"),
            "PIOLET_ENV_IMAGES": str(CHECKOUT / ".images"),
            "PIOLET_ROOT": str(self.root),
            "TORCH_VENV": str(CHECKOUT / ".venv-torch"),
        }

    @property
    def logbooks(self):
        """All logbooks, in the order of their jobs."""
        return sorted((path.parent for path in self.root.glob("*/*/job.json")), key=lambda path: int(path.name))

    @property
    def logbook(self):
        """The newest logbook."""
        return max(self.root.glob("*/*/job.json"), key=lambda path: path.stat().st_mtime_ns).parent

    def read(self, name):
        return json.loads((self.logbook / name).read_text())

    def jobs(self):
        """The ids of the user's jobs that have not ended."""
        return self.on_lab("squeue", "--noheader", "--user", self.user, "--format=%A").stdout.split()


def commands_of(name):
    """The fenced commands of a document, without those that wait for a person or need root for a lab."""
    blocks = re.findall(r"^```\n(.*?)^```", (CHECKOUT / name).read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for line in "".join(blocks).splitlines() if re.match(r"(export|[A-Z_]+=\S+ piolet|piolet) ", line)]
    return [line for line in lines if "piolet lab" not in line]


@pytest.fixture
def piolet_run(on_lab, user, root):
    run = PioletRun(on_lab, user, root)
    wait_until_idle(on_lab)
    yield run
    wait_until_idle(on_lab)  # a detached job may still write its report


def wait_until_idle(on_lab):
    """Wait until no job is left and every node is free for the next one."""
    deadline = time.monotonic() + 60
    while (
        on_lab("squeue", "--noheader").stdout
        or on_lab("sinfo", "-h", "-t", "alloc,mix,comp", "-o", "%N").stdout.strip()
    ):
        assert time.monotonic() < deadline, "a job was left behind"
        time.sleep(0.1)


@pytest.fixture
def faulty(lab, on_lab):
    """Inject a fault with `faulty("node2:1", "--xid", "79")`; everything is cleared afterwards."""
    touched = set()

    def inject(gpu, *flags):
        touched.add(gpu)
        on_lab(PIOLET, "lab", "gpu", "--name", lab.name, gpu, *flags)

    yield inject
    for gpu in touched:
        on_lab(PIOLET, "lab", "gpu", "--name", lab.name, gpu, "--clear")
