"""Job ids as Slurm writes them: ``123``, ``123_4``, ``123_[1-5%2]``, ``123+1``, and steps such as ``123_4.batch``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from piolet.core.errors import UsageError

_FORM = re.compile(
    r"(?P<job>\d+)(?:_(?P<task>\d+)|_\[(?P<tasks>[\d,:.%-]+)\]|\+(?P<offset>\d+))?(?:\.(?P<step>\w+))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class JobId:
    """A job, a task of a job array (`task`), its waiting tasks (`tasks`, as ``1-5%2``), or a het component (`offset`).

    `job` is the array's or the heterogeneous job's id; `step` names a step of it ("batch", "extern", "0").
    """

    job: int
    task: int | None = None
    tasks: str = ""
    offset: int | None = None
    step: str = ""

    def __str__(self) -> str:
        part = f"_{self.task}" if self.task is not None else f"_[{self.tasks}]" if self.tasks else ""
        part = f"+{self.offset}" if self.offset is not None else part
        return f"{self.job}{part}" + (f".{self.step}" if self.step else "")


def parse(text: str) -> JobId:
    """Return the id that `text` names.

    Raises:
        UsageError: it has none of the forms above.
    """
    match = _FORM.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a job id", remedy="give a number as squeue shows it: 123, 123_4 or 123+1")
    task, offset = match["task"], match["offset"]
    return JobId(
        int(match["job"]),
        task=None if task is None else int(task),
        tasks=match["tasks"] or "",
        offset=None if offset is None else int(offset),
        step=match["step"] or "",
    )
