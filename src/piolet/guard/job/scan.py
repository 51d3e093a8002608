"""From what the processes of a job have open on a node to risks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator

from packaging.version import InvalidVersion, Version

from piolet.core.errors import UsageError
from piolet.core.text import size
from piolet.guard import rules
from piolet.guard.finding import Place, Risk, Scan, risk
from piolet.guard.job.endpoints import Service, open_services
from piolet.guard.job.gpus import Leftover
from piolet.guard.job.processes import Process
from piolet.tools.sockets import Listener

TORCH_FIXED = Version("2.6.0")
"""Before it, torch.load runs code of a pickle also with weights_only=True (CVE-2025-32434)."""

FIRST_EPHEMERAL = 32768
"""The first port that Linux gives to whoever asks for any (ip_local_port_range)."""

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_MOST_PORTS = 65535

Asker = Callable[[str, int], Iterable[Service]]


def ports(words: Iterable[str]) -> frozenset[int]:
    """Return the ports of ``8000`` and ``20000-20100``; UsageError for anything else."""
    found: set[int] = set()
    for word in words:
        match = _PORTS.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 < first <= last <= _MOST_PORTS:
            raise UsageError(f'"{word}" is not a port', where="--declare", remedy="write 8000, or 20000-20100")
        found.update(range(first, last + 1))
    return frozenset(found)


def scan_job(
    processes: Collection[Process],
    left: Iterable[Leftover],
    declared: Collection[int],
    node: str,
    ask: Asker = open_services,
) -> Scan:
    """Scan what `processes` open on `node`, and its GPUs; `declared` are the ports that are meant to be open."""
    risks = {each for process in processes for each in _of_process(process, declared, node, ask)}
    return Scan("job", len(processes), 0, tuple(sorted(risks | set(_of_gpus(left, node)))), "program")


def _of_process(process: Process, declared: Collection[int], node: str, ask: Asker) -> Iterator[Risk]:
    if old := _is_old(process.torch):
        yield risk(rules.OLD_TORCH, _place(node, process), f"torch {process.torch} is loaded{old}")
    for listener in process.listeners:
        where = f"port {listener.port} of {'every address' if listener.everywhere else listener.address}"
        if process.apart:
            yield risk(rules.APART, _place(node, process), f"it listens on {where}, in a network of its own")
            continue
        if not listener.local and listener.port not in declared:
            yield risk(rules.UNDECLARED, _place(node, process), f"it listens on {where}")
        if listener.port not in declared and not may_be_asked(process, listener):
            continue
        for service in ask(_host(listener), listener.port):
            rule = rules.HALF_OPEN if service.half else rules.OPEN_ENDPOINT
            yield risk(rule, _place(node, process), f"{service.name} on {where} answers {service.path} to anybody")


def may_be_asked(process: Process, listener: Listener) -> bool:
    """Return whether a request does no harm there.

    The ranks of a job meet on ports of the kernel's choice and on MASTER_PORT: a stranger may break their meeting.
    """
    return listener.port < FIRST_EPHEMERAL and listener.port != process.meeting_port


def _place(node: str, process: Process) -> Place:
    return Place(node, inside=f"{process.name} {process.pid}")


def _host(listener: Listener) -> str:
    if listener.everywhere:
        return "127.0.0.1"  # a socket of IPv6 that takes every address takes this one too, unless it is told not to
    return str(listener.address)


def _is_old(version: str) -> str:
    """Return what is to be said of a version that is too old; empty if it is not."""
    try:
        return f"; {TORCH_FIXED} is fixed" if version and Version(version) < TORCH_FIXED else ""
    except InvalidVersion:
        return f"; whether it is at least {TORCH_FIXED} cannot be told"


def _of_gpus(found: Iterable[Leftover], node: str) -> Iterator[Risk]:
    for each in found:
        reason = f"{size(each.used_bytes)} of {size(each.total_bytes)} are in use, and not by this job"
        yield risk(rules.GPU_MEMORY, Place(node, inside=each.name), reason)
