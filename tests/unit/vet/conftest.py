"""What the tests of checks share: a node with simulated GPUs, whose checks run as on a real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from piolet.cli.main import run_command
from piolet.core.native import DIRECTORY
from piolet.core.run import SystemRunner
from piolet.core.settings import Settings
from piolet.lab import gpus
from piolet.vet import load_protocol
from piolet.vet.step import node_argv

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
        return self.checks(f"evals:\n- {{{entry}}}\n")[0]

    def checks(self, text: str, *, ordinary: bool = False) -> list[dict[str, Any]]:
        """Run a protocol on this node as `piolet vet` does, or in ordinary Python only."""
        path = self.directory.parent / "protocol.yaml"
        path.write_text(text, encoding="utf-8")
        protocol = load_protocol(str(path), Settings())
        if ordinary:
            protocol = replace(protocol, checks=tuple(replace(check, light=False) for check in protocol.checks))
        environment = {
            "LD_LIBRARY_PATH": str(DIRECTORY),
            "PIOLET_GPUSIM": str(self.directory),
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_GPUS": "0,1",
        }
        said = SystemRunner(environment).run(node_argv(protocol), timeout=20).stdout
        found: list[dict[str, Any]] = json.loads(said.splitlines()[-1])["checks"]
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
