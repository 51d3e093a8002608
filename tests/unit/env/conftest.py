"""An EDF directory with an image that is a directory, and a compiler for what is written there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from piolet.core.run import Result
from piolet.core.settings import EnvSettings, Settings
from piolet.env import ContainerPlan, compile_environment


class NoRunner:
    """No program is needed for an image that is a directory."""

    def run(self, argv: Any, **_: Any) -> Result:
        raise AssertionError(argv)


@dataclass
class Desk:
    """Where a user writes EDFs: files, variables, settings."""

    directory: Path
    environ: dict[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)

    def write(self, text: str, name: str = "test.toml") -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def compile(self, name: str = "./test.toml") -> ContainerPlan:
        return compile_environment(
            name, environ=self.environ, cwd=self.directory, settings=self.settings, runner=NoRunner()
        )

    def compile_text(self, text: str) -> ContainerPlan:
        self.write(f'image = "./rootfs"\n{text}')
        return self.compile()

    def use(self, **env: Any) -> None:
        self.settings = Settings(env=EnvSettings(**env))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    environ: Mapping[str, str] = {"HOME": str(tmp_path / "home"), "USER": "ada", "SCRATCH": "/scratch/ada"}
    return Desk(tmp_path, dict(environ))


@pytest.fixture
def piolet(desk: Desk) -> Any:
    """Run `piolet env` in the desk's directory as a user types it."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environ = os.environ | desk.environ | {"PIOLET_ROOT": str(desk.directory / "root")}
        argv = [sys.executable, "-m", "piolet", "env", *words]
        return subprocess.run(
            argv, check=False, capture_output=True, text=True, cwd=desk.directory, env=environ, timeout=20
        )

    return run
