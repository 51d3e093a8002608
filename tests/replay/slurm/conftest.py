"""What the real Slurm said, as scripts/record_slurm.py kept it: one runner for each version and scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from piolet.core.files import read_json
from piolet.core.run import ReplayRunner

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"
VERSIONS = sorted(RECORDINGS.glob("slurm-*"))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def version(request) -> Path:
    return request.param


@pytest.fixture
def replay(version) -> Callable[[str], ReplayRunner]:
    """Answers as in a scene."""
    return lambda scene: ReplayRunner(version / scene)


@pytest.fixture
def asked(version) -> Callable[..., list[list[str]]]:
    """The commands of a scene that start with the given words."""

    def commands(scene: str, *words: str) -> list[list[str]]:
        answers = [read_json(path)["argv"] for path in sorted((version / scene).glob("*.json"))]
        return [argv for argv in answers if argv[: len(words)] == list(words)]

    return commands
