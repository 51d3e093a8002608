"""What the tests of checks share: a node with simulated GPUs, whose checks run as on a real one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from piolet.cli.main import run_command
from piolet.core.config import Settings
from piolet.core.native import DIRECTORY
from piolet.core.run import SystemRunner
from piolet.lab import gpus
from piolet.vet import load_protocol

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class SimulatedNode:
    """A node of two GPUs; faults go to GPU 1."""

    directory: Path

    def fault(self, **flags: Any) -> None:
        for fault in gpus.parse_faults(flags):
            gpus.inject(self.directory, 1, fault)

    def check(self, entry: str) -> dict[str, Any]:
        """Run one entry of a protocol on this node, in a process of its own; gives its result."""
        path = self.directory.parent / "protocol.yaml"
        path.write_text(f"evals:\n- {{{entry}}}\n", encoding="utf-8")
        protocol = load_protocol(str(path), Settings()).to_json()
        environment = {
            "LD_LIBRARY_PATH": str(DIRECTORY),
            "PIOLET_GPUSIM": str(self.directory),
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_GPUS": "0,1",
        }
        argv = [sys.executable, "-m", "piolet.vet", protocol]
        found: dict[str, Any] = json.loads(SystemRunner(environment).run(argv, timeout=20).stdout.splitlines()[-1])[
            "checks"
        ][0]
        return found


@pytest.fixture(scope="session")
def _library() -> None:
    SystemRunner().run(["make", "-s", "-C", str(ROOT / "gpusim")], timeout=120)


@pytest.fixture
def simulated_node(tmp_path: Path, _library: None) -> Callable[..., SimulatedNode]:
    def make(model: str = "h100") -> SimulatedNode:
        directory = tmp_path / "node1" / "gpu"
        gpus.write_inventory(directory, node="node1", count=2, model=model)
        return SimulatedNode(directory)

    return make


@pytest.fixture
def piolet(capsys, monkeypatch, tmp_path):
    """Run a command; gives exit status, stdout and stderr."""
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "site.toml").touch()
    monkeypatch.setenv("PIOLET_SITE_CONFIG", str(tmp_path / "site.toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PIOLET_ROOT", str(tmp_path / "logbooks"))

    def run(*argv: str):
        status = run_command(list(argv))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
