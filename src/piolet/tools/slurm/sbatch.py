"""sbatch: what to ask for, the readable batch script that asks for it, and its submission."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import ParseError, UsageError
from piolet.core.run import Runner, SystemRunner
from piolet.tools.slurm import errors


@dataclass(frozen=True, slots=True)
class Request:
    """What a batch job asks of Slurm; empty or None leaves it to Slurm. Values are in Slurm's own forms."""

    nodes: int
    name: str = ""
    partition: str = ""
    account: str = ""
    time_limit: str = ""
    gpus_per_node: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    exclusive: bool = False
    output: str = ""
    chdir: str = ""
    comment: str = ""
    dependency: str = ""
    array: str = ""
    nodelist: str = ""
    exclude: str = ""
    requeue: bool | None = None
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that Slurm took; `cluster` is empty for the only cluster there is."""

    job: int
    cluster: str = ""


def options(request: Request) -> tuple[str, ...]:
    """Return the long options of sbatch that say `request`, `extra` last so that it wins."""
    values: tuple[tuple[str, str | int | None], ...] = (
        ("job-name", request.name),
        ("partition", request.partition),
        ("account", request.account),
        ("nodes", request.nodes),
        ("ntasks-per-node", request.ntasks_per_node),
        ("cpus-per-task", request.cpus_per_task),
        ("gpus-per-node", request.gpus_per_node),
        ("time", request.time_limit),
        ("output", request.output),
        ("chdir", request.chdir),
        ("comment", request.comment),
        ("dependency", request.dependency),
        ("array", request.array),
        ("nodelist", request.nodelist),
        ("exclude", request.exclude),
    )
    given = [f"--{name}={value}" for name, value in values if value not in {None, ""}]
    switches = ["--exclusive"] if request.exclusive else []
    if request.requeue is not None:
        switches.append("--requeue" if request.requeue else "--no-requeue")
    return (*given, *switches, *request.extra)


def script(chosen: Sequence[str], body: str, *, interpreter: str = "/bin/bash") -> str:
    """Return a batch script: the interpreter, one #SBATCH line for each option, and `body`.

    Raises:
        UsageError: an option holds a newline, which no #SBATCH line can say.
    """
    directives = "".join(f"#SBATCH {directive(option)}\n" for option in chosen)
    return f"#!{interpreter}\n{directives}\n{body.rstrip()}\n"


def directive(option: str) -> str:
    """Quote `option` for a #SBATCH line, where a backslash keeps the next character even within quotes."""
    if "\n" in option:
        raise UsageError(
            f"{option.partition('=')[0]} spans several lines, which a batch script cannot say",
            where=repr(option),
            remedy="write it on one line",
        )
    if re.fullmatch(r"[\w%+,./:=@\[\]-]+", option, re.ASCII):
        return option
    name, separator, value = option.partition("=")
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}{separator}"{quoted}"'


def argv(chosen: Sequence[str] = (), path: Path | None = None) -> list[str]:
    """Return the command that submits the script at `path`, or from stdin."""
    return ["sbatch", "--parsable", *chosen, *([str(path)] if path else [])]


def parse(text: str) -> Submitted:
    """Return what Slurm took: ``123`` or ``123;cluster``."""
    job, _, cluster = text.strip().rpartition("\n")[2].partition(";")
    if not job.isdigit():
        raise ParseError("sbatch named no job", source="sbatch --parsable", text=text)
    return Submitted(int(job), cluster)


def submit(script_or_path: str | Path, *, chosen: Sequence[str] = (), runner: Runner | None = None) -> Submitted:
    """Submit a script, given as its text or its path, and return its job.

    sbatch hands its environment on to the job, so by default it gets the user's own and not the Runner's.

    Raises:
        RequestRefused: the partition, the account or the nodes cannot be had.
        SlurmUnavailable: the controller does not answer; nothing was submitted.
        ToolTimeout: no answer in time; the job may have been submitted, and squeue tells by its name.
    """
    runner = runner or SystemRunner(speech={})
    if isinstance(script_or_path, Path):
        return parse(errors.call(runner, argv(chosen, script_or_path)).stdout)
    return parse(errors.call(runner, argv(chosen), stdin=script_or_path).stdout)
