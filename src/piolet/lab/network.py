"""What a lab takes of this machine's networks: free TCP ports, and with netns a bridge with a free 10.x.y.0/24.

Nodes make their own ends (node.sh). Names follow from the lab's directory, so `down` needs no record of them.
"""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path

from piolet.core.errors import Refused
from piolet.core.run import Runner
from piolet.lab.cluster import Lab, Place
from piolet.lab.directory import bridge_name
from piolet.lab.spec import Network, Spec

# Below the range that Linux gives to outgoing connections (net.ipv4.ip_local_port_range: 32768-60999).
_PORTS = range(20000, 32000)
_ATTEMPTS = 200
_IP_TIMEOUT_S = 20.0
_YEAR_2026_S = 1_767_225_600
_JOB_IDS = 67_000_000  # Slurm's MaxJobId is 67 043 328


def choose_place(spec: Spec, others: Iterable[Lab], runner: Runner) -> Place:
    """Return ports and, with netns, a subnet that nobody on this machine uses, nor any of the `others`.

    Raises:
        Refused: none was found.
    """
    others = tuple(others)
    count = 2 + spec.nodes
    taken = {port for lab in others for port in _span(lab)}
    subnet = _free_subnet(others, runner) if spec.network is Network.NETNS else None
    for _ in range(_ATTEMPTS):
        first = random.randrange(_PORTS.start, _PORTS.stop - count)  # noqa: S311 - a place, not a secret
        if taken.isdisjoint(range(first, first + count)) and _all_free(range(first, first + count)):
            return Place(first, first + 1, first + 2, subnet, first_job_id(time.time()))
    raise Refused(
        f"no {count} free TCP ports in a row from {_PORTS.start} to {_PORTS.stop}",
        where="this machine",
        remedy="take another lab down, or see what listens there with `ss -tln`",
    )


def first_job_id(now_s: float) -> int:
    """Return a job id that no earlier lab has reached, unless it ran more than a job a second: seconds since 2026."""
    return max(1, int(now_s) - _YEAR_2026_S) % _JOB_IDS + 1


def ensure_bridge(lab: Lab, runner: Runner) -> None:
    """Make the lab's bridge and give it the gateway's address, unless it is there."""
    subnet = lab.place.subnet
    if subnet is None:
        return
    name = bridge_name(lab.directory)
    if not (Path("/sys/class/net") / name).exists():
        runner.run(["ip", "link", "add", name, "type", "bridge"], timeout=_IP_TIMEOUT_S)
    address = f"{lab.gateway}/{subnet.prefixlen}"
    runner.run(["ip", "address", "replace", address, "dev", name], timeout=_IP_TIMEOUT_S)
    runner.run(["ip", "link", "set", name, "up"], timeout=_IP_TIMEOUT_S)


def link_name(lab: Lab, node: str) -> str:
    """Return the name of this machine's end of the link to `node`."""
    return f"{bridge_name(lab.directory)}n{lab.nodes.index(node) + 1}"


def _span(lab: Lab) -> range:
    return range(lab.place.slurmctld_port, lab.place.slurmctld_port + 2 + lab.spec.nodes)


def _all_free(ports: range) -> bool:
    with ExitStack() as stack:
        for port in ports:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", port))
            except OSError:
                return False
    return True


def _free_subnet(others: Iterable[Lab], runner: Runner) -> IPv4Network:
    used = [lab.place.subnet for lab in others if lab.place.subnet] + _routed(runner)
    for _ in range(_ATTEMPTS):
        second, third = random.randrange(64, 256), random.randrange(256)  # noqa: S311 - a place, not a secret
        subnet = IPv4Network(f"10.{second}.{third}.0/24")
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise Refused(
        "no free 10.x.y.0/24 network", where="ip route", remedy="use --net host, or free a network of this machine"
    )


def _routed(runner: Runner) -> list[IPv4Network]:
    answer = runner.run(["ip", "-4", "-json", "route", "show", "table", "all"], timeout=_IP_TIMEOUT_S).stdout
    targets = [route["dst"] for route in json.loads(answer or "[]") if route["dst"] != "default"]
    return [IPv4Network(target, strict=False) for target in targets]
