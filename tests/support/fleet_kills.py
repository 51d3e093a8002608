"""What tests of the fleet on a real cluster share: evidence, and commands that are killed at any stage."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Status
from piolet.core.run import SystemRunner
from piolet.fleet import applying as acting
from piolet.fleet import center, gathering, policy
from piolet.fleet.evidence import Evidence, Kind, Source, made_id
from piolet.fleet.ledger import Instruction, Order, Step, Verb
from piolet.tools.slurm import scontrol, sinfo, squeue
from piolet.tools.slurm.states import NodeFlag


def reasons(runner: SystemRunner) -> dict[str, str]:
    return {node.name: node.reason for node in sinfo.nodes(runner) if NodeFlag.DRAIN in node.state.flags}


def fatal(node: str, job: int) -> Evidence:
    """An Xid 79 of the GPU of `node`, which the site itself saw."""
    return Evidence(made_id(node, job), 10**18 + job, Kind.XID, "79", node, gpu=f"GPU-{node}", job=str(job))


WRAPPER = """#!/bin/sh
# {name}, which stops at its Nth call, before or after it has run, if the file `stop` says so, until there is `go`.
cd {directory} || exit
echo "{name} $*" >> calls
call="{name} $(grep -c "^{name} " calls)"
stop() {{
  [ "$call $1" = "$(cat stop)" ] || return 0
  echo $$ > stopped
  while [ ! -e go ]; do sleep 0.02; done
}}
stop before
{real} "$@" || exit
echo "{name} $*" >> ran
stop after
"""

SITES = {Verb.RESET: "reset-gpu", Verb.REBOOT: "reboot-node", Verb.TICKET: "open-ticket"}
"""The site's commands. They go on when the fleet is killed; Slurm's are killed with it."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the fleet is killed: at the Nth call of a command, before or after it has run.

    `changed`: what the action is to change is changed by then.
    """

    verb: Verb
    command: str
    call: int
    when: str
    begun: bool = True
    changed: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.when} {self.command} {self.call}"


def _of_slurm(verb: Verb, change: int, last: int) -> list[Stage]:
    """The stages of an action that is one call of scontrol: the first looks at the node, the last may release it."""
    before = [Stage(verb, "scontrol", call, "before", changed=call > change) for call in range(1, last + 1)]
    return [*before, Stage(verb, "scontrol", change, "after", changed=True)]


def _of_the_site(verb: Verb) -> list[Stage]:
    """The stages of an action that is a command of the site, which once.sh runs."""
    command = SITES[verb]
    return [
        Stage(verb, "scontrol", 1, "before"),
        Stage(verb, "sh", 1, "before"),
        Stage(verb, command, 1, "before"),
        Stage(verb, command, 1, "after", changed=True),
        Stage(verb, "sh", 1, "after", changed=True),
    ]


# The fleet looks at Slurm (sinfo, squeue), plans, writes "begun", looks at the node (scontrol 1), changes something and
# writes "done". To vet it looks for a reservation (scontrol 2), makes it (3), resumes the node (4), looks for the job
# (the second squeue of the service) and submits it.
STAGES = [
    *(Stage(verb, "sinfo", 1, "before", begun=False) for verb in Verb),
    *_of_slurm(Verb.DRAIN, 2, 3),
    *_of_slurm(Verb.RESUME, 2, 3),
    *_of_slurm(Verb.MARK, 3, 3),
    *_of_slurm(Verb.UNMARK, 3, 3),
    *(stage for verb in SITES for stage in _of_the_site(verb)),
    *(Stage(Verb.VET, "scontrol", call, "before") for call in range(1, 5)),
    *(Stage(Verb.VET, "scontrol", call, "after") for call in (3, 4)),
    Stage(Verb.VET, "squeue", 2, "before"),
    Stage(Verb.VET, "sbatch", 1, "before"),
    Stage(Verb.VET, "sbatch", 1, "after", changed=True),
]
QUICK = [
    Stage(Verb.DRAIN, "scontrol", 2, "after", changed=True),
    Stage(Verb.RESET, SITES[Verb.RESET], 1, "before"),
    Stage(Verb.VET, "sbatch", 1, "after", changed=True),
]
"""One of each sort, for every run of the tests."""

CHANGES = {
    Verb.DRAIN: "scontrol update .*state=drain",
    Verb.RESUME: "scontrol update .*state=resume",
    Verb.VET: "sbatch",
    Verb.MARK: "scontrol update .*features=piolet_probation",
    Verb.UNMARK: "scontrol update .*features=$",
    **SITES,
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
        with self.started(there, *argv) as process:
            while not (stopped.exists() and stopped.read_text()):
                assert process.poll() is None, f"it ended before {there}"
                time.sleep(0.02)
            process.kill()
        if stage.command in SITES.values():
            (self.directory / "go").touch()
        else:
            os.kill(int(stopped.read_text()), signal.SIGKILL)

    @contextmanager
    def started(self, stop: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `piolet fleet` with `argv` meanwhile; its log is in `log`."""
        self._prepare(stop)
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(["piolet", "fleet", *argv], env=self.environment, stdout=log, stderr=log)
            try:
                yield process
            finally:
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


def waits_for(verb: Verb, path: Path, rules: policy.Policy, runner: SystemRunner) -> None:
    """Make a fleet in which `verb` is the next to be done, of node3, once that is at rest."""
    while (here := gathering.node_now(runner, "node3")) is None or here.busy or not here.answers:
        time.sleep(0.1)
    with center.opened(path, rules) as opened:
        opened.gather([fatal("node3", job) for job in (1, 2)], 4)

        def applied(order: Order | None = None) -> None:
            if order:
                opened.instruct(Instruction(order, "node3", "ann"))
            seen = gathering.cluster_now(runner)
            opened.settle(seen)
            opened.apply(opened.plan(seen), opened.hands(runner))

        if verb is not Verb.DRAIN:
            applied()
        if verb in {Verb.VET, Verb.RESUME}:
            opened.instruct(Instruction(Order.VET if verb is Verb.VET else Order.RETURN, "node3", "ann"))
        if verb in {Verb.MARK, Verb.UNMARK}:
            applied(Order.RETURN)
        if verb is Verb.UNMARK:
            applied()
            opened.gather([_clean(opened.now_ns() + job, job) for job in (1, 2)], 4)


def _clean(time_ns: int, job: int) -> Evidence:
    """A job on node3 that ended well, as Slurm tells."""
    known = {"nodes": "node3", "status": Status.PASS, "job": str(job), "source": Source.SLURM}
    return Evidence(made_id("clean", job), time_ns, Kind.JOB, "COMPLETED", **known)


def at_rest(runner: SystemRunner) -> None:
    """Leave the cluster as it was: no job, no reservation, no drain."""
    runner.run(["scancel", "--user=root"], timeout=60)
    while squeue.jobs(runner, states=["PENDING", "RUNNING", "COMPLETING"]):
        time.sleep(0.05)
    for node in ("node2", "node3"):
        if scontrol.reserved(runner, acting.reservation(node)):
            scontrol.release(runner, acting.reservation(node))
        scontrol.set_features(runner, NodeSet(node), [])
    for node in reasons(runner):
        scontrol.resume(runner, NodeSet(node))


def wrapped(directory: Path, environment: dict[str, str]) -> Applying:
    """Return what runs the fleet's commands with Slurm's, the shell and the site's wrapped below `directory`."""
    directory.mkdir()
    for name in ("calls", "ran"):
        (directory / name).touch()
    real = {name: name for name in ("sinfo", "scontrol", "sbatch", "squeue", "sh")}
    for name, program in (real | dict.fromkeys(SITES.values(), "true") | {SITES[Verb.TICKET]: "curl"}).items():
        wrapper = directory / "bin" / name
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(WRAPPER.format(name=name, real=shutil.which(program), directory=directory))
        wrapper.chmod(0o755)
    return Applying(directory, environment | {"PATH": f"{directory / 'bin'}:{environment['PATH']}"})
