"""srun: the command line of a job step. The caller starts it and owns its streams and signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from piolet.core.nodeset import NodeSet


@dataclass(frozen=True, slots=True)
class Step:
    """What a step asks for; empty or None leaves it to Slurm.

    `overlap` shares the nodes with other steps, `exact` takes only what is asked for. `job` joins a running job
    from outside. `environment` is the EDF of its container, for the SPANK plugin. `export` is srun's: "ALL",
    "NONE" or names and values. `output` may hold srun's patterns (%N, %t).
    """

    nodes: int | None = None
    ntasks: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    nodelist: NodeSet | None = None
    gpus_per_node: int | None = None
    gres: str = ""
    mem: str = ""
    time_limit: str = ""
    environment: str = ""
    export: str = ""
    output: str = ""
    error: str = ""
    chdir: str = ""
    name: str = ""
    job: int | None = None
    immediate_s: int | None = None
    wait_s: int | None = None
    overlap: bool = False
    exact: bool = False
    kill_on_bad_exit: bool = False
    label: bool = False
    unbuffered: bool = False
    quiet: bool = False
    extra: tuple[str, ...] = ()


def argv(step: Step, command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` as `step`, `extra` last so that it wins."""
    values: tuple[tuple[str, object], ...] = (
        ("jobid", step.job),
        ("job-name", step.name),
        ("nodes", step.nodes),
        ("ntasks", step.ntasks),
        ("ntasks-per-node", step.ntasks_per_node),
        ("cpus-per-task", step.cpus_per_task),
        ("nodelist", str(step.nodelist) if step.nodelist else None),
        ("gpus-per-node", step.gpus_per_node),
        ("gres", step.gres),
        ("mem", step.mem),
        ("time", step.time_limit),
        ("environment", step.environment),
        ("export", step.export),
        ("output", step.output),
        ("error", step.error),
        ("chdir", step.chdir),
        ("immediate", step.immediate_s),
        ("wait", step.wait_s),
    )
    switches = (
        ("overlap", step.overlap),
        ("exact", step.exact),
        ("kill-on-bad-exit", step.kill_on_bad_exit),
        ("label", step.label),
        ("unbuffered", step.unbuffered),
        ("quiet", step.quiet),
    )
    given = [f"--{name}={value}" for name, value in values if value not in {None, ""}]
    return ["srun", *given, *(f"--{name}" for name, on in switches if on), *step.extra, *command]
