"""The daemons of a lab: how each is started, and when it is ready."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from piolet.core.errors import PioletError, Refused, ToolError
from piolet.core.run import STDOUT, Process, SystemRunner
from piolet.lab import processes
from piolet.lab.cluster import LOOPBACK, Lab, slurmd_port
from piolet.lab.directory import bridge_name, group_name
from piolet.lab.network import link_name
from piolet.lab.spec import Isolation, Network

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NODE_SCRIPT = Path(__file__).with_name("node.sh")
_START_S = 60.0
_POLL_S, _POLL_MAX_S = 0.005, 0.08
_LOG_TAIL_LINES = 8


@dataclass(frozen=True, slots=True)
class Daemon:
    """A program that detaches itself; `log` says why it failed, `port` is what it listens to at `address`."""

    label: str
    argv: tuple[str, ...]
    log: Path
    variables: dict[str, str] = field(default_factory=dict)
    port: int | None = None
    address: str = LOOPBACK


def munged(lab: Lab) -> Daemon:
    """Return the lab's munged, with its own key and socket."""
    directory, log = lab.directory / "munge", lab.directory / "log" / "munged.log"
    argv = [
        "munged",
        f"--key-file={directory / 'private' / 'key'}",
        f"--seed-file={directory / 'private' / 'seed'}",
        f"--socket={lab.munge_socket}",
        f"--pid-file={lab.directory / 'run' / 'munged.pid'}",
        f"--log-file={log}",
    ]
    return Daemon("munged", tuple(argv), log)


def slurmctld(lab: Lab) -> Daemon:
    """Return the lab's controller."""
    log = lab.directory / "log" / "slurmctld.log"
    return Daemon("slurmctld", ("slurmctld",), log, port=lab.place.slurmctld_port, address=lab.gateway)


def slurmd(lab: Lab, node: str, survivor: processes.Process | None) -> Daemon:
    """Return the slurmd of `node`, in new namespaces, or in those of a `survivor` of the node's steps."""
    script = ("/bin/sh", str(_NODE_SCRIPT), str(lab.directory), node)
    variables = _node_variables(lab, node)
    if survivor:
        argv, variables = script, variables | {"LAB_SURVIVOR": str(survivor.pid)}
    else:
        new_network = ("--net",) if lab.spec.network is Network.NETNS else ()
        argv = ("unshare", "--mount", "--uts", "--propagation=slave", *new_network, *script)
    port = slurmd_port(lab, node) if lab.spec.network is Network.HOST else None
    return Daemon(f"slurmd@{node}", argv, lab.directory / "log" / f"slurmd-{node}.log", variables, port)


def start(lab: Lab, wanted: Iterable[Daemon]) -> None:
    """Start the daemons at the same time and wait until each has detached itself.

    Raises:
        Refused: another program has taken the port of one; none was started.
        ToolError: one failed; the message has the end of its log.
    """
    wanted = tuple(wanted)
    for daemon in wanted:
        _require_free_port(lab, daemon)
    started = [(daemon, _launch(lab, daemon)) for daemon in wanted]
    statuses = [(daemon, process.wait(_START_S)) for daemon, process in started]
    for daemon, status in statuses:
        if status:
            raise ToolError(daemon.argv, status, _why(lab, daemon), remedy=_remedy(lab))


def wait_until(ready: Callable[[], bool], lab: Lab, daemon: Daemon, *, timeout_s: float = _START_S) -> None:
    """Wait until `ready()`; if that takes too long or the daemon ends, a PioletError has the end of its log."""
    deadline = time.monotonic() + timeout_s
    next_look = time.monotonic() + 1
    pause_s = _POLL_S
    while not ready():
        now = time.monotonic()
        if now > deadline or (now > next_look and daemon.label not in processes.daemons(lab.directory)):
            what = "is not ready" if now > deadline else "has ended"
            raise PioletError(f"{daemon.label} {what}: {_why(lab, daemon)}", where=str(daemon.log), remedy=_remedy(lab))
        if now > next_look:
            next_look = now + 1
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _POLL_MAX_S)


def answers(address: str, port: int) -> bool:
    """Tell whether something listens on a TCP port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((address, port)) == 0


def accepts(path: Path) -> bool:
    """Tell whether something listens on the Unix socket `path`."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _require_free_port(lab: Lab, daemon: Daemon) -> None:
    if daemon.port is not None and answers(daemon.address, daemon.port):
        raise Refused(
            f"the port of {daemon.label} was taken by another program",
            where=f"{daemon.address}:{daemon.port}",
            remedy=f"`piolet lab down --name {lab.name}` and up again takes other ports; `ss -tlnp` shows the program",
        )


def _launch(lab: Lab, daemon: Daemon) -> Process:
    marker = {processes.MARKER: str(lab.directory), processes.DAEMON_MARKER: daemon.label}
    clean = marker | {"PATH": _PATH, "SLURM_CONF": str(lab.slurm_conf), "PIOLET_SITE_CONFIG": str(lab.site_config)}
    assignments = [f"{name}={value}" for name, value in (clean | daemon.variables).items()]
    with _output(lab, daemon).open("ab") as output:
        # The marker is in both environments, so that no moment between fork and exec is without it.
        return SystemRunner(env=marker, cwd=lab.directory).start(
            ["env", "-i", *assignments, *daemon.argv], stdout=output, stderr=STDOUT, new_session=True
        )


def _node_variables(lab: Lab, node: str) -> dict[str, str]:
    """Return what node.sh is told of the node's network and cgroups."""
    variables: dict[str, str] = {}
    if lab.place.subnet:
        variables |= {
            "LAB_VETH": link_name(lab, node),
            "LAB_BRIDGE": bridge_name(lab.directory),
            "LAB_ADDRESS": f"{lab.address(node)}/{lab.place.subnet.prefixlen}",
            "LAB_GATEWAY": lab.gateway,
        }
    if lab.spec.isolation is Isolation.CGROUP:
        variables["LAB_CGROUP"] = group_name(lab.directory)
    return variables


def _output(lab: Lab, daemon: Daemon) -> Path:
    return lab.directory / "log" / f"{daemon.label.replace('@', '-')}.out"


def _why(lab: Lab, daemon: Daemon) -> str:
    """Return the last lines of what the daemon said before it detached itself, or else of its log."""
    for path in (_output(lab, daemon), daemon.log):
        if path.exists() and (text := path.read_text(encoding="utf-8", errors="replace").strip()):
            return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])
    return "it said nothing"


def _remedy(lab: Lab) -> str:
    return f"correct that and run it again; `piolet lab down --name {lab.name}` removes what is left, if anything"
