"""Driver, firmware, kernel and system are the same on all nodes of the allocation.

A node only tells what it has; piolet.vet.peers compares the nodes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pynvml
from annotated_types import MinLen

from piolet.core.errors import ToolMissing
from piolet.core.nouns import Status
from piolet.tools import nvml, sysfs
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus
from piolet.vet.peers import SEPARATOR

Item = Literal["driver", "VBIOS", "kernel", "OS", "BIOS", "adapters"]

SYSFS = Path("/sys/class")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What must be the same.

    `items`: driver (of the GPUs), VBIOS (of allocated GPUs), kernel, OS, BIOS (of the board), adapters (the firmware
    of those of InfiniBand).
    """

    items: Annotated[tuple[Item, ...], MinLen(1)] = ("driver", "VBIOS", "kernel", "OS", "BIOS", "adapters")


@dataclass(frozen=True, slots=True)
class Observation:
    """The VBIOS of each GPU, and the versions of the rest."""

    gpus: Gpus[str]
    driver: str
    kernel: str
    system: str
    board: str = "none"
    adapters: str = "none"


def observe(parameters: Parameters, context: Context) -> Observation:  # noqa: ARG001 - the interface of checks
    """Read the versions of this node."""
    found = gpus.observe(context, lambda handle: nvml.supported(pynvml.nvmlDeviceGetVbiosVersion, handle))
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "not named")
    return Observation(found, _driver(), os.uname().release, system, *firmware(SYSFS))


def firmware(classes: Path) -> tuple[str, str]:
    """Return the versions of the board's BIOS and of the adapters' firmware below `classes` (/sys/class)."""
    versions = {sysfs.text(each / "fw_ver") or "not told" for each in sysfs.entries(classes / "infiniband")}
    return sysfs.text(classes / "dmi/id/bios_version") or "none", ", ".join(sorted(versions)) or "none"


def judge(observation: Observation, parameters: Parameters) -> Judgement:
    """Pass with the versions as the value; a GPU that is lost cannot tell its own."""
    if observation.gpus.lost:
        lost = observation.gpus.lost[0]
        return Judgement(
            Status.UNKNOWN, f"{lost.name}: {lost.lost}", remedy="the checks gpu_count and gpu_xid say more"
        )
    found = SEPARATOR.join(f"{item} {version}" for item, version in _versions(observation) if item in parameters.items)
    return Judgement(Status.PASS, found, found)


def _versions(observation: Observation) -> Iterator[tuple[Item, str]]:
    bioses = {reading.value or "not told" for reading in observation.gpus.readings}
    yield "driver", observation.driver
    yield "VBIOS", ", ".join(sorted(bioses)) or "none"
    yield "kernel", observation.kernel
    yield "OS", observation.system
    yield "BIOS", observation.board
    yield "adapters", observation.adapters


def _driver() -> str:
    try:
        return nvml.start()
    except ToolMissing:
        return "none"


CHECK = Check(
    name="uniform",
    version=2,
    summary="driver, firmware, kernel and system are the same on all nodes",
    source="the allocation itself: what more than half of its nodes have",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    uniform=True,
)
