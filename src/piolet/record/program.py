"""`piolet record -- CMD`: start the agent beside a program, then become the program.

The program replaces this process: its pid, signals, descriptors, arguments and exit status are its own, and the
agent, which is no child of it, follows its end.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from piolet import metrics
from piolet.core.errors import PioletError, Refused, UsageError, storage_errors
from piolet.core.nodeset import NodeSet
from piolet.core.settings import Settings
from piolet.logbook import layout, provenance
from piolet.logbook.layout import Logbook
from piolet.logbook.records import JobRecord, NodeAllocation, Request, write_job
from piolet.record import election
from piolet.record.agent import run_agent
from piolet.record.rates import intervals
from piolet.record.spec import AgentSpec

LOCAL_CLUSTER = "local"


class CommandNotFound(UsageError):  # noqa: N818 - reads as the fact it states
    """The program to record does not exist; exits as a shell does."""

    exit_status = 127


class NotExecutable(UsageError):  # noqa: N818 - reads as the fact it states
    """The program to record cannot be executed; exits as a shell does."""

    exit_status = 126


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process runs: Slurm's job, cluster, nodes and first task, or this machine alone."""

    cluster: str
    job_id: str
    node: str
    nodes: tuple[str, ...]
    first: bool

    @classmethod
    def of(cls, environ: Mapping[str, str], cluster: str, hostname: str, now_ns: int, pid: int) -> Place:
        """Read it from Slurm's variables; without them, the job is named by the time and the process id."""
        node = environ.get("SLURMD_NODENAME") or hostname.partition(".")[0]
        job_id = environ.get("SLURM_JOB_ID")
        if not job_id:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ns / 1e9))
            return cls(LOCAL_CLUSTER, f"{stamp}-{pid}", node, (node,), first=True)
        nodes = NodeSet(environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or node)
        return cls(
            cluster=cluster or environ.get("SLURM_CLUSTER_NAME") or "slurm",
            job_id=job_id,
            node=node,
            nodes=tuple(nodes),
            first=environ.get("SLURM_PROCID", "0") == "0",
        )


def record_program(
    command: Sequence[str], settings: Settings, *, logbook: Path | None = None, node: str = ""
) -> NoReturn:
    """Record this node into `logbook` (default: the job's own) while `command` runs in place of this process.

    Raises:
        CommandNotFound, NotExecutable: the program cannot be run; nothing was started or written.
        StorageError: the logbook cannot be made; nothing was started.
    """
    environ = original_environment()
    program = find_program(command[0], os.fsdecode(environ.get(b"PATH", os.fsencode(os.defpath))))
    place = Place.of(os.environ, settings.cluster, socket.gethostname(), time.time_ns(), os.getpid())
    place = replace(place, node=node or place.node)
    chosen = intervals(settings.record.rates)
    record = job_record(place, command, settings.record.interval_s, chosen, time.time_ns())
    book, owns_job = open_logbook(place, layout.root(settings), logbook, record)
    spec = AgentSpec(
        logbook=book.path,
        node=place.node,
        interval_s=settings.record.interval_s,
        flush_s=settings.record.flush_s,
        kernel_log=settings.record.kernel_log,
        dcgm=settings.record.dcgm,
        intervals_s=chosen,
        exporter=settings.record.metrics,
        owns_job=owns_job,
    )
    if start_agent(spec):
        sys.stderr.write(f"piolet: recording to {book.path}\n")
    _become(program, command, environ | {metrics.VARIABLE.encode(): os.fsencode(spec.metrics)})


def find_program(name: str, search_path: str) -> str:
    """Return the path of the program that a shell would run for `name`."""
    found = shutil.which(name, path=search_path)
    if found:
        return found
    if "/" in name and Path(name).exists():
        raise NotExecutable(f"{name} is not an executable file", remedy="chmod +x, or name its interpreter first")
    where = "" if "/" in name else f"PATH: {search_path}"
    raise CommandNotFound(f"{name}: command not found", where=where, remedy="correct the command after `--`")


def open_logbook(place: Place, root: Path, chosen: Path | None, record: JobRecord) -> tuple[Logbook, bool]:
    """Make the logbook, or join the one of the same job; also return whether this process wrote job.json."""
    directory = (chosen or root / place.cluster / place.job_id).absolute()
    if not place.first:
        book = Logbook(directory)
        with storage_errors(book.path, "create the logbook"):
            book.path.mkdir(parents=True, exist_ok=True)
        return book, False
    try:
        book = layout.create(directory.parent.parent, directory.parent.name, directory.name)
    except Refused:
        return Logbook(directory), False
    write_job(book.job, record)
    return book, True


def job_record(
    place: Place, command: Sequence[str], interval_s: float, chosen: Mapping[str, float], now_ns: int
) -> JobRecord:
    """Return job.json as it is known before the program starts; the agent adds the GPUs and the end."""
    return JobRecord(
        job_id=place.job_id,
        cluster=place.cluster,
        user=getpass.getuser(),
        command=tuple(command),
        request=Request(nodes=len(place.nodes), record=True),
        name=Path(command[0]).name,
        allocation=tuple(NodeAllocation(node, from_ns=now_ns) for node in place.nodes),
        started_ns=now_ns,
        program_started_ns=now_ns,
        sample_interval_s=interval_s,
        intervals_s=dict(chosen),
        versions=provenance.versions(Path.cwd()),
    )


def start_agent(spec: AgentSpec) -> bool:
    """Start the agent in a session of its own, to follow this process; False if the node has one that now does.

    A recorder that cannot start is said on stderr and does not keep the program from running.
    """
    follow = os.pidfd_open(os.getpid())
    try:
        elected = election.elect(spec.address, follow)
    except PioletError as error:
        sys.stderr.write(f"piolet: not recording: {error}\n")
        return False
    if elected is None:
        return False
    _detach(replace(spec, follow=(follow,), election=elected.fileno()))
    elected.close()
    os.close(follow)
    return True


def _detach(spec: AgentSpec) -> None:
    """Fork twice, so that the agent is nobody's child, and close everything that it does not need."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            _close_all_but(spec.descriptors)
            run_agent(spec)
    finally:
        os._exit(1)


def _close_all_but(kept: Sequence[int]) -> None:
    """Close every descriptor but `kept`, and point the standard ones at /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in kept:  # noqa: PLR2004 - standard input, output and error stay
            try:
                os.close(descriptor)
            except OSError:  # the descriptor of the listing itself
                continue


def original_environment() -> dict[bytes, bytes]:
    """Return the environment as this process was given it.

    Python adds LC_CTYPE to its own when it starts in the C locale; the program that follows is to see none of that.
    """
    try:
        raw = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environb)
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0"))
    return {name: value for name, equals, value in pairs if equals and name}


def _become(program: str, command: Sequence[str], environ: Mapping[bytes, bytes]) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and exec would hand that on
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, list(command), environ)  # noqa: S606 - the user's own words, no shell
    except OSError as error:
        raise NotExecutable(
            f"{program} cannot be executed: {error.strerror}", remedy="check that it is a program for this machine"
        ) from error
