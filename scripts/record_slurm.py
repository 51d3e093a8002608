"""Record what Slurm's commands say, for the replay tests: jobs and nodes in every state, refusals, a silent Slurm.

It needs a cluster of its own with four nodes, four GPUs each, and accounting, since it drains nodes:

    piolet lab up --name recording --accounting
    piolet lab exec --name recording -- .venv/bin/python scripts/record_slurm.py [SCENE...]
    piolet lab down --name recording

The recordings go to tests/replay/recordings/slurm-<version>/<scene>/. It takes two minutes, most of them waiting
for a job to reach its time limit.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from piolet.core.errors import PioletError
from piolet.core.nodeset import NodeSet
from piolet.core.run import RecordingRunner, Runner, SystemRunner
from piolet.tools.slurm import jobs, sacct, sbatch, scancel, scontrol, sinfo, squeue
from piolet.tools.slurm.states import JobState

HERE = Path(__file__).resolve().parent.parent
SLEEP = "#!/bin/bash\nsleep 600\n"
COMMON = ("--output=/dev/null", "--chdir=/")
SYSTEM = SystemRunner()
WAIT_S = 150


def main() -> None:
    """Record the scenes that are named, or all of them."""
    version = SYSTEM.run(["sinfo", "--version"], timeout=10).stdout.split()[-1].rpartition(".")[0]
    directory = HERE / "tests" / "replay" / "recordings" / f"slurm-{version}"
    scenes = (busy, ended, refused, controller_down, database_down, no_accounting, not_configured)
    for scene in scenes:
        if sys.argv[1:] and scene.__name__ not in sys.argv[1:]:
            continue
        target = directory / scene.__name__.replace("_", "-")
        shutil.rmtree(target, ignore_errors=True)
        with as_they_were():
            scene(target)
        for path in target.glob("*.json"):
            path.write_bytes(scrubbed(path.read_bytes()))
        print(f"{target.relative_to(HERE)}: {len(list(target.glob('*.json')))} answers")


def busy(target: Path) -> None:
    """Jobs with unusual names, an array, a heterogeneous job, one that waits for ever; nodes drained and down."""
    ids = [
        submit("--nodes=2", "--gpus-per-node=2", "--job-name=two\nlines = x  y"),
        submit("--nodes=1", "--array=1-5%2", "--job-name=sweep"),
        submit("--nodes=1", ":", "--nodes=1", "--job-name=coupled"),
        submit("--nodelist=node1", "--job-name=caf\udce9 \udcff|pipe", "--comment=a=b JobState=FAILED c"),
        submit("--nodes=9", "--job-name=too large"),
    ]
    until(lambda: all(job.state is not JobState.PENDING for job in squeue.jobs(SYSTEM, ids=ids[:1] + ids[3:4])))
    set_node("node4", "DRAIN", "GPU 1: Xid 79 | lost\nsee the ledger")
    set_node("node3", "DOWN", "no answer")
    runner = RecordingRunner(SYSTEM, target)
    squeue.jobs(runner)
    squeue.jobs(runner, names=["sweep"], states=["RUNNING", "PENDING"])
    for job in ids:
        scontrol.jobs(runner, job)
    sinfo.partitions(runner)
    sinfo.nodes(runner)
    scontrol.node_records(runner, NodeSet("node[1-4]"))
    scontrol.ping(runner)
    scontrol.config(runner)
    scontrol.hostnames(runner, "rack[1-2]n[01-03],login1")


def ended(target: Path) -> None:
    """Jobs that completed, failed, were killed, cancelled, ran out of time, gave nodes back; all by both ways."""
    timeout = submit("--job-name=timeout", "--time=1")
    ids = [
        submit("--job-name=completed", script="#!/bin/bash\nsrun true\n"),
        submit("--job-name=failed", script="#!/bin/bash\nsrun bash -c 'exit 7'\n"),
        submit("--job-name=killed", script="#!/bin/bash\nkill -KILL $$\n"),
        submit("--job-name=two\nlines | caf\udce9", script="#!/bin/bash\ntrue\n"),
    ]
    cancelled, shrunk = submit("--job-name=cancelled"), submit("--job-name=shrunk", "--nodes=3")
    until(lambda: all(state(job) is JobState.RUNNING for job in (cancelled, shrunk)))
    held = scontrol.jobs(SYSTEM, shrunk)[0]
    scontrol.shrink(SYSTEM, shrunk, NodeSet(held.batch_host) | held.nodes.first(2))
    scancel.cancel(SYSTEM, cancelled, shrunk)
    ids += [cancelled, shrunk, timeout]
    until(lambda: all(state(job).finished for job in ids))
    time.sleep(5)  # sacct's rows come late
    runner = RecordingRunner(SYSTEM, target)
    for job in ids:
        jobs.find(runner, job)
        sacct.jobs(runner, [job])
        sacct.steps(runner, job)
    sacct.jobs(runner, [999999])


def refused(target: Path) -> None:
    """What users get wrong, and what does not exist."""
    runner = RecordingRunner(SYSTEM, target)
    requests = (
        "--partition=nowhere",
        "--nodelist=node99",
        "--mem=99T",
        "--gpus-per-node=99",
        "--time=soon",
        "--bogus",
        "--gres=gpu:h100:x",
        "--cpus-per-task=999",
        "--nodes=0",
    )  # fmt: skip - a table
    for option in requests:
        with suppress(PioletError):
            scancel.cancel(SYSTEM, sbatch.submit(SLEEP, chosen=(*COMMON, option), runner=runner))
    with suppress(PioletError):
        sbatch.submit("echo no interpreter\n", runner=runner)
    ended_job = submit("--job-name=over", script="#!/bin/bash\ntrue\n")
    until(lambda: state(ended_job).finished)
    with suppress(PioletError):
        scontrol.shrink(runner, ended_job, NodeSet("node1"))
    with suppress(PioletError):
        squeue.jobs(runner, ids=[999999])
    for ask in (scontrol.jobs, jobs.find):
        with suppress(PioletError):
            ask(runner, 999999)
    scontrol.node_records(runner, NodeSet("node99"))
    scancel.cancel(runner, 999999)


def controller_down(target: Path) -> None:
    """No slurmctld: the same questions to a port where nobody listens."""
    with configured(r"(?m)^SlurmctldPort=.*$", f"SlurmctldPort={free_port()}") as system:
        ask_all(RecordingRunner(system, target))


def database_down(target: Path) -> None:
    """No slurmdbd."""
    with (
        configured(r"(?m)^AccountingStoragePort=.*$", f"AccountingStoragePort={free_port()}") as system,
        suppress(PioletError),
    ):
        sacct.jobs(RecordingRunner(system, target), [1])


def no_accounting(target: Path) -> None:
    """A cluster that keeps no accounts."""
    setting = "AccountingStorageType=accounting_storage/none"
    with configured(r"(?m)^AccountingStorageType=.*$", setting) as system, suppress(PioletError):
        sacct.jobs(RecordingRunner(system, target), [1])


def not_configured(target: Path) -> None:
    """Slurm is installed and no cluster is near."""
    runner = RecordingRunner(SystemRunner({"SLURM_CONF": None}), target)
    with suppress(PioletError):
        sinfo.partitions(runner)


def ask_all(runner: Runner) -> None:
    """Ask every command once and let it fail."""
    asked: tuple[Callable[[], object], ...] = (
        lambda: squeue.jobs(runner),
        lambda: scontrol.jobs(runner, 1),
        lambda: sinfo.partitions(runner),
        lambda: sbatch.submit(SLEEP, runner=runner),
        lambda: scancel.cancel(runner, 1),
        lambda: scontrol.ping(runner),
    )
    for ask in asked:
        with suppress(PioletError):
            ask()


def submit(*options: str, script: str = SLEEP) -> int:
    """Submit a job of this recording."""
    return sbatch.submit(script, chosen=(*COMMON, *options)).job


def state(job: int) -> JobState:
    """Return what Slurm says of a job now."""
    return scontrol.jobs(SYSTEM, job)[0].state


def set_node(name: str, to: str, reason: str = "") -> None:
    """Drain, fell or resume a node."""
    why = [f"Reason={reason}"] if reason else []
    SYSTEM.run(["scontrol", "update", f"NodeName={name}", f"State={to}", *why], timeout=10, ok=None)


@contextmanager
def as_they_were() -> Iterator[None]:
    """Afterwards end all jobs and resume all nodes."""
    try:
        yield
    finally:
        SYSTEM.run(["scancel", "--user", os.environ.get("USER", "root")], timeout=10)
        for node in sinfo.nodes(SYSTEM):
            if not node.state.usable:
                set_node(node.name, "RESUME")
        until(lambda: not squeue.jobs(SYSTEM, states=["PENDING", "RUNNING", "COMPLETING"]))


@contextmanager
def configured(pattern: str, replacement: str) -> Iterator[SystemRunner]:
    """Yield a runner whose Slurm has a configuration that differs in one setting."""
    original = Path(os.environ["SLURM_CONF"])
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(shutil.copytree(original.parent, Path(directory) / "etc"))
        changed, count = re.subn(pattern, replacement, (copy / original.name).read_text())
        if not count:
            raise SystemExit(f"{original} does not say {pattern}")
        (copy / original.name).write_text(changed)
        yield SystemRunner({"SLURM_CONF": str(copy / original.name)})


def free_port() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit("the cluster did not come to the state to be recorded")
        time.sleep(0.5)


def scrubbed(content: bytes) -> bytes:
    """Take this machine's paths, name and kernel out of a recording."""
    lab = str(Path(os.environ["SLURM_CONF"]).parent.parent).encode()
    host = socket.gethostname().encode()
    content = re.sub(rb"\b%s(?= is |\()" % re.escape(host), b"login1", content.replace(lab, b"/lab"))
    content = re.sub(rb"OS=Linux [^\n\\]*", b"OS=Linux 6.1.0-18-amd64 #1 SMP PREEMPT_DYNAMIC ", content)
    return re.sub(rb"AllocNode:Sid=[\w.-]+:\d+", b"AllocNode:Sid=login1:4242", content)


if __name__ == "__main__":
    main()
