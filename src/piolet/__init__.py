"""Piolet makes a Slurm supercomputer serve machine learning: run, vet, record, explain.

A program that is recorded may say how it does; both calls do nothing elsewhere and never raise:

    piolet.log(step=step, loss=loss, tokens=tokens)
    piolet.phase("checkpoint")

And a job, running or past, is read with `piolet.open`:

    with piolet.open("4711") as job:
        job.table("gpu").polars()
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing is slow to import, and every command and every node pass by here
if TYPE_CHECKING:
    from typing import Any

    from piolet.metrics import log, phase

__version__ = "0.1.0"
__all__ = ["__version__", "log", "open", "phase"]


def open(job: str) -> Any:  # noqa: A001, ANN401 - piolet.open reads as it should; a piolet.watch.Book, loaded on use
    """Open a job, named by its id or the directory of its logbook; close it, or use it in a `with`."""
    import importlib  # noqa: PLC0415 - programs that only log need none of this

    return importlib.import_module("piolet.watch.archive").find_configured(job)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - one of two functions
    if name not in {"log", "phase"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from piolet import metrics  # noqa: PLC0415 - only programs that tell something need it

    return getattr(metrics, name)
