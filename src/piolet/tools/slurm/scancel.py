"""scancel: end jobs, or send them a signal."""

from __future__ import annotations

from collections.abc import Sequence

from piolet.core.run import Runner
from piolet.tools.slurm import errors


def argv(ids: Sequence[int | str], *, signal: str = "", full: bool = False) -> list[str]:
    """Return the command that ends jobs, or signals them: all steps, or with `full` the batch script as well."""
    options = [f"--signal={signal}"] if signal else []
    return ["scancel", *options, *(["--full"] if full else []), *(str(job) for job in ids)]


def cancel(runner: Runner, *ids: int | str, signal: str = "", full: bool = False) -> None:
    """End jobs, or signal them. A job that is over or unknown is no error: it does not run, as was asked."""
    errors.call(runner, argv(ids, signal=signal, full=full))
