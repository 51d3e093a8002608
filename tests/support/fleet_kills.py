"""What tests of the fleet on a real cluster share: evidence, and commands that are killed at any stage."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from piolet.core.nodeset import NodeSet
from piolet.core.run import SystemRunner
from piolet.fleet import applying as acting
from piolet.fleet import center, gathering, policy
from piolet.fleet.evidence import Evidence, Kind, made_id
from piolet.fleet.ledger import Instruction, Order, Step, Verb
from piolet.tools.slurm import scontrol, sinfo, squeue
from piolet.tools.slurm.states import NodeFlag


def reasons(runner: SystemRunner) -> dict[str, str]:
    return {node.name: node.reason for node in sinfo.nodes(runner) if NodeFlag.DRAIN in node.state.flags}


def fatal(node: str, job: int) -> Evidence:
    """An Xid 79 of the GPU of `node`, which the site itself saw."""
    return Evidence(made_id(node, job), 10**18 + job, Kind.XID, "79", node, gpu=f"GPU-{node}", job=str(job))


WRAPPER = """#!/bin/sh
# Slurm's command {name}, which stops for good at its Nth call, before or after it has run, if the file `stop` says so.
cd {directory} || exit
echo "{name} $*" >> calls
call="{name} $(grep -c "^{name} " calls)"
stop() {{ if [ "$call $1" = "$(cat stop)" ]; then echo $$ > stopped; exec sleep 1000; fi; }}
stop before
{real} "$@" || exit
echo "{name} $*" >> ran
stop after
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where `piolet fleet apply` is killed: at the Nth call of a command of Slurm, before or after it has run.

    `changed`: what the action is to change in Slurm is changed by then.
    """

    verb: Verb
    command: str
    call: int
    when: str
    begun: bool = True
    changed: bool = False


# apply looks at Slurm (sinfo 1), plans, writes "begun", looks at the node (scontrol 1), changes Slurm and then writes
# "done". To vet it looks for a reservation (scontrol 2), makes it (3), resumes the node (4), looks for the job and
# submits it.
STAGES = [
    Stage(Verb.DRAIN, "sinfo", 1, "before", begun=False),
    Stage(Verb.DRAIN, "scontrol", 1, "before"),
    Stage(Verb.DRAIN, "scontrol", 2, "before"),
    Stage(Verb.DRAIN, "scontrol", 2, "after", changed=True),
    Stage(Verb.RESUME, "scontrol", 2, "before"),
    Stage(Verb.RESUME, "scontrol", 2, "after", changed=True),
    Stage(Verb.VET, "scontrol", 3, "after"),
    Stage(Verb.VET, "scontrol", 4, "after"),
    Stage(Verb.VET, "sbatch", 1, "before"),
    Stage(Verb.VET, "sbatch", 1, "after", changed=True),
]
CHANGES = {
    Verb.DRAIN: "scontrol update .*state=drain",
    Verb.RESUME: "scontrol update .*state=resume",
    Verb.VET: "sbatch",
}
"""The command that changes what an action is for: it must run once."""


@dataclass(frozen=True, slots=True)
class Applying:
    """`piolet fleet apply` with Slurm's commands wrapped, to be killed or left to its end."""

    directory: Path
    environment: dict[str, str]

    def killed_at(self, stage: Stage, *argv: str) -> None:
        """Run `piolet fleet` with `argv` until it is at `stage`, then kill -9 it and the command that it waits for."""
        stopped = self.directory / "stopped"
        there = f"{stage.command} {stage.call} {stage.when}"
        self.killed_when(lambda: stopped.exists() and bool(stopped.read_text()), there, *argv)
        os.kill(int(stopped.read_text()), signal.SIGKILL)

    def killed_when(self, there: Callable[[], bool], stop: str = "nowhere", *argv: str) -> None:
        """Run it (by default `apply`) until it is `there`, then kill -9 it alone."""
        with self.started(stop, *(argv or ("apply",))) as process:
            while not there():
                assert process.poll() is None, f"it ended before {stop}"
                time.sleep(0.02)
            process.kill()

    @contextmanager
    def started(self, stop: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `piolet fleet` with `argv` meanwhile; its log is in `log`."""
        self._prepare(stop)
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(["piolet", "fleet", *argv], env=self.environment, stdout=log, stderr=log)
            yield process
            process.terminate()
            process.wait()

    def whole(self) -> str:
        """Run it to its end."""
        self._prepare("nowhere")
        argv = ["piolet", "fleet", "apply"]
        return subprocess.run(argv, check=True, env=self.environment, capture_output=True, text=True, timeout=60).stdout

    def _prepare(self, stop: str) -> None:
        (self.directory / "stopped").unlink(missing_ok=True)
        (self.directory / "calls").write_text("")
        (self.directory / "stop").write_text(stop)

    def changes(self, verb: Verb) -> int:
        """How often Slurm was told what `verb` is for."""
        return len(re.findall(f"(?mi)^{CHANGES[verb]}", (self.directory / "ran").read_text()))


def steps(path: Path, verb: Verb) -> list[str]:
    contents = [entry.content for entry in center.entries(path)]
    return [one.phase.value for one in contents if isinstance(one, Step) and one.verb is verb]


def drained(path: Path, rules: policy.Policy, runner: SystemRunner, *orders: Order) -> None:
    """Make a fleet that asks for a drain of node3, or has drained it and has `orders` for it, once it is at rest."""
    while (here := gathering.node_now(runner, "node3")) is None or here.busy or not here.answers:
        time.sleep(0.1)
    with center.opened(path, rules) as opened:
        opened.gather([fatal("node3", job) for job in (1, 2)], 4)
        if orders:
            opened.apply(opened.plan(gathering.cluster_now(runner)), opened.hands(runner))
        for order in orders:
            opened.instruct(Instruction(order, "node3", "ann"))


def at_rest(runner: SystemRunner) -> None:
    """Leave the cluster as it was: no job, no reservation, no drain."""
    runner.run(["scancel", "--user=root"], timeout=60)
    while squeue.jobs(runner, states=["PENDING", "RUNNING", "COMPLETING"]):
        time.sleep(0.05)
    for node in ("node2", "node3"):
        if scontrol.reserved(runner, acting.reservation(node)):
            scontrol.release(runner, acting.reservation(node))
    for node in reasons(runner):
        scontrol.resume(runner, NodeSet(node))


def wrapped(directory: Path, environment: dict[str, str]) -> Applying:
    """Return what runs the fleet's commands with Slurm's wrapped below `directory`."""
    directory.mkdir()
    for name in ("calls", "ran"):
        (directory / name).touch()
    for name in ("sinfo", "scontrol", "sbatch", "squeue"):
        wrapper = directory / "bin" / name
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(WRAPPER.format(name=name, real=shutil.which(name), directory=directory))
        wrapper.chmod(0o755)
    return Applying(directory, environment | {"PATH": f"{directory / 'bin'}:{environment['PATH']}"})
