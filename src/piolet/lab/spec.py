"""What a lab is to be: its size, GPUs, network, accounting and isolation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from piolet.core.errors import Refused, UsageError
from piolet.core.text import plural
from piolet.lab.gpu_models import find_model

NODES_MAX = 1000
NETNS_NODES_MAX = 250  # one /24 a lab, with addresses left for the gateway
_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_CGROUP_V1_FREEZER = Path("/sys/fs/cgroup/freezer/tasks")


class Network(StrEnum):
    """Whether nodes share the machine's network (and differ by port) or have a namespace and an address each."""

    HOST = "host"
    NETNS = "netns"


class Isolation(StrEnum):
    """Whether a job is confined to the memory and devices it was given."""

    NONE = "none"
    CGROUP = "cgroup"


@dataclass(frozen=True, slots=True)
class Spec:
    """The parameters of a lab. The Slurm in it is real; its CPUs, memory and GPUs are simulated."""

    name: str = "lab"
    nodes: int = 4
    gpus: int = 4
    model: str = "h100"
    network: Network = Network.HOST
    accounting: bool = False
    isolation: Isolation = Isolation.NONE

    def check(self) -> None:
        """Raise UsageError for what cannot be built anywhere, Refused for what this machine cannot give."""
        check_name(self.name)
        most = NODES_MAX if self.network is Network.HOST else NETNS_NODES_MAX
        if not 1 <= self.nodes <= most:
            raise UsageError(
                f"a lab cannot have {plural(self.nodes, 'node')}", where="--nodes", remedy=f"give 1 to {most}"
            )
        slots = len(find_model(self.model).bus_ids)
        if not 1 <= self.gpus <= slots:
            raise UsageError(
                f"a node cannot have {plural(self.gpus, 'GPU')}", where="--gpus", remedy=f"give 1 to {slots}"
            )
        if self.isolation is Isolation.CGROUP and not _CGROUP_V1_FREEZER.exists():
            raise Refused(
                "this machine has no cgroup v1 hierarchy, which Slurm 22.05 needs to confine jobs",
                where="/sys/fs/cgroup",
                remedy="leave --isolation at none, or boot with systemd.unified_cgroup_hierarchy=0",
            )

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as lab.json keeps them."""
        return {
            "name": self.name,
            "nodes": self.nodes,
            "gpus": self.gpus,
            "model": self.model,
            "net": self.network.value,
            "accounting": self.accounting,
            "isolation": self.isolation.value,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Spec:
        """Return the parameters that lab.json keeps."""
        return cls(
            name=values["name"],
            nodes=values["nodes"],
            gpus=values["gpus"],
            model=values["model"],
            network=Network(values["net"]),
            accounting=values["accounting"],
            isolation=Isolation(values["isolation"]),
        )


def check_name(name: str) -> None:
    """Raise UsageError unless `name` can name a directory, a Slurm cluster and its database tables."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f'a lab cannot be named "{name}"',
            where="--name",
            remedy="use at most 30 of a-z, 0-9 and -, and begin with a letter",
        )
