"""A lab on disk: where its files are, what lab.json says of it, and how others use it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from piolet import __version__
from piolet.core.errors import ParseError, UsageError
from piolet.core.files import read_json, write_json
from piolet.core.text import did_you_mean
from piolet.lab import ending
from piolet.lab.directory import labs_directory
from piolet.lab.spec import Network, Spec, check_name

LOOPBACK = "127.0.0.1"
NETNS_SLURMD_PORT = 6818


@dataclass(frozen=True, slots=True)
class Place:
    """What a lab holds of the machine's own name spaces: TCP ports, and with netns a 10.x.y.0/24; and its job ids.

    `slurmd_port` is the first of as many as there are nodes; with netns every node uses NETNS_SLURMD_PORT.
    `first_job` is the id of its first job: a later lab of this name counts on, since logbooks outlive labs.
    """

    slurmctld_port: int
    slurmdbd_port: int
    slurmd_port: int
    subnet: IPv4Network | None = None
    first_job: int = 1


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that exists: its directory, its parameters and its place on this machine."""

    directory: Path
    spec: Spec
    place: Place

    @property
    def name(self) -> str:
        """Its name, which is also Slurm's ClusterName."""
        return self.spec.name

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of its nodes: node1, node2, ..."""
        return tuple(f"node{number}" for number in range(1, self.spec.nodes + 1))

    @property
    def slurm_conf(self) -> Path:
        """Its slurm.conf."""
        return self.directory / "etc" / "slurm.conf"

    @property
    def site_config(self) -> Path:
        """The site configuration of Piolet on it."""
        return self.directory / "etc" / "piolet.toml"

    @property
    def munge_socket(self) -> Path:
        """The socket of its own munged."""
        return self.directory / "munge" / "socket"

    def node_directory(self, node: str) -> Path:
        """Return the directory that `node` sees as /run/piolet-node; an unknown node is a UsageError."""
        if node not in self.nodes:
            raise UsageError(f'lab {self.name} has no node "{node}"', remedy=did_you_mean(node, self.nodes))
        return self.directory / "nodes" / node

    def address(self, node: str) -> str:
        """Return the IPv4 address of `node`; the machine's loopback if nodes share its network."""
        subnet = self.place.subnet
        return LOOPBACK if subnet is None else str(subnet[self.nodes.index(node) + 1])

    @property
    def gateway(self) -> str:
        """The IPv4 address at which nodes reach this machine, and with it slurmctld."""
        return LOOPBACK if self.place.subnet is None else str(self.place.subnet[-2])

    def environment(self) -> dict[str, str]:
        """Return the variables with which commands use this lab: SLURM_CONF, PIOLET_SITE_CONFIG and PATH."""
        own = str(Path(sys.executable).parent)
        path = os.environ.get("PATH") or os.defpath
        return {
            "SLURM_CONF": str(self.slurm_conf),
            "PIOLET_SITE_CONFIG": str(self.site_config),
            "PATH": path if own in path.split(os.pathsep) else f"{own}{os.pathsep}{path}",
        }

    def down(self) -> None:
        """End everything in this lab and remove it; see piolet.lab.ending.down."""
        ending.down(self.name, self.directory.parent)

    def save(self) -> None:
        """Write lab.json."""
        write_json(self.directory / "lab.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return what lab.json says."""
        place = self.place
        return {
            "version": 1,
            "piolet": __version__,
            "simulated": True,
            "spec": self.spec.to_json(),
            "nodes": list(self.nodes),
            "ports": {
                "slurmctld": place.slurmctld_port,
                "slurmdbd": place.slurmdbd_port,
                "slurmd": place.slurmd_port,
            },
            "subnet": None if place.subnet is None else str(place.subnet),
            "first_job": place.first_job,
        }


def load(directory: Path) -> Lab:
    """Read the lab.json of `directory`; StorageError if there is none, ParseError if it is not a lab's."""
    path = directory / "lab.json"
    values = read_json(path)
    try:
        ports, subnet = values["ports"], values["subnet"]
        place = Place(
            ports["slurmctld"],
            ports["slurmdbd"],
            ports["slurmd"],
            None if subnet is None else IPv4Network(subnet),
            values.get("first_job", 1),
        )
        return Lab(directory, Spec.from_json(values["spec"]), place)
    except (KeyError, TypeError, ValueError) as error:
        raise ParseError(f"not the record of a lab: {error!r}", source=str(path)) from error


def open_lab(name: str = "lab", directory: Path | None = None) -> Lab:
    """Return the lab `name`; `directory` holds all labs (default: setting lab.directory).

    Raises:
        UsageError: there is no such lab.
    """
    check_name(name)
    home = labs_directory(directory)
    if not (home / name / "lab.json").exists():
        raise UsageError(f'there is no lab "{name}"', where=str(home), remedy=f"piolet lab up --name {name}")
    return load(home / name)


def list_labs(directory: Path | None = None) -> tuple[Lab, ...]:
    """Return every lab of `directory` (default: setting lab.directory), ordered by name."""
    return tuple(load(path.parent) for path in sorted(labs_directory(directory).glob("*/lab.json")))


def slurmd_port(lab: Lab, node: str) -> int:
    """Return the TCP port of the slurmd of `node`."""
    if lab.spec.network is Network.NETNS:
        return NETNS_SLURMD_PORT
    return lab.place.slurmd_port + lab.nodes.index(node)
