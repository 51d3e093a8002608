from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import made_logbooks
import metric_stores
import pytest
import running_jobs
from metric_stores import Store
from running_jobs import RunningJob

from piolet.logbook.layout import Logbook
from piolet.watch import exporter

STORES = ("prometheus", "victoria-metrics")


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Logbook:
    """A short version of the training job that has everything; read only."""
    root: Path = tmp_path_factory.mktemp("watched")
    return made_logbooks.training(root, nodes=2, gpus=2, scale=0.5)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningJob, list[Store]]]:
    """A running job that both stores have scraped three times.

    A session's fixture could be minutes old when a test gets it, and both stores forget a series after five.
    """
    root = tmp_path_factory.mktemp("stored")
    job = running_jobs.made(root)
    with ExitStack() as stack:
        target = stack.enter_context(exporter.serving(job.open, 0)).removeprefix("http://").removesuffix("/metrics")
        stores = [stack.enter_context(metric_stores.running(name, target, root / name)) for name in STORES]
        for _ in range(3):
            job.sample()
            while not all(store.raw("piolet_gpu_power_w") == job.raw("power_w") for store in stores):
                time.sleep(0.2)
        yield job, stores
