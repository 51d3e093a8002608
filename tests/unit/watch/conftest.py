from __future__ import annotations

from pathlib import Path

import made_logbooks
import pytest

from piolet.logbook.layout import Logbook


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Logbook:
    """A short version of the training job that has everything; read only."""
    root: Path = tmp_path_factory.mktemp("watched")
    return made_logbooks.training(root, nodes=2, gpus=2, scale=0.5)
