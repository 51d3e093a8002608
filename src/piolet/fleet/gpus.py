"""What a node itself sees of its GPUs: Xids in the kernel's log, memory errors and rows remapped as NVML counts them.

It is for root on the node, and makes items of a report (piolet.fleet.reports). The same fact has the same id, so a node
may look as often as it likes: a message of the log counts once, a counter once for each value that it has.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pynvml

from piolet.core.errors import ToolMissing, storage_errors
from piolet.fleet.evidence import Kind
from piolet.tools import kmsg, nvml, sysfs
from piolet.tools.nvml import Device, GpuLost

Item = dict[str, Any]

_OLDEST_S = 86_400.0
"""Older messages of the log are no news."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a GPU: errors since the driver was loaded, the state of row remapping; None is not known."""

    uuid: str
    serial: str = ""
    uncorrected: int | None = None
    corrected: int | None = None
    remapped: int | None = None
    remap_pending: bool = False
    remap_failed: bool = False
    sram_threshold: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What there was to see at `time_ns`, `since_boot_s` after the `boot` of that name.

    `log` has the records of the kernel's log, `memories` the GPUs that answer, `uuids` those of all by bus id.
    """

    boot: str
    time_ns: int
    since_boot_s: float
    log: str
    uuids: Mapping[str, str] = field(default_factory=dict)
    memories: tuple[Memory, ...] = ()


def look(kernel_log: Path) -> Seen:
    """Read the kernel's log and ask NVML; a node without its library has no GPU to ask.

    Raises:
        StorageError: the log cannot be read.
    """
    with storage_errors(kernel_log, "read the kernel log"):
        log = kmsg.read_log(kernel_log)
    seen = Seen(sysfs.text(_BOOT) or "", time.time_ns(), time.monotonic(), log)
    try:
        with nvml.session() as driver:
            devices = nvml.devices(driver)
            uuids = {one.bus_id: one.uuid for one in devices}
            return replace(seen, uuids=uuids, memories=tuple(_memories(devices)))
    except ToolMissing:
        return seen


def _memories(devices: Sequence[Device]) -> Iterator[Memory]:
    for device in devices:
        try:
            yield _memory(device)
        except GpuLost:
            continue  # the log says so


def _memory(device: Device) -> Memory:
    _, remapped, pending, failed = nvml.optional(pynvml.nvmlDeviceGetRemappedRows, device.handle) or (None,) * 4
    return Memory(
        device.uuid,
        nvml.optional(pynvml.nvmlDeviceGetSerial, device.handle) or "",
        nvml.ecc_errors(device.handle, uncorrected=True),
        nvml.ecc_errors(device.handle, uncorrected=False),
        remapped,
        bool(pending),
        bool(failed),
        _sram_threshold(device.handle),
    )


def _sram_threshold(handle: Any) -> bool:  # noqa: ANN401 - opaque
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    status.version = pynvml.nvmlEccSramErrorStatus_v1
    told = nvml.optional(pynvml.nvmlDeviceGetSramEccErrorStatus, handle, ctypes.byref(status))
    return told is not None and bool(status.bThresholdExceeded)


def items(seen: Seen, node: str, job: str = "") -> list[Item]:
    """Return what `seen` says against `node`, where `job` has just ended if it is named."""
    found = [*_xids(seen), *(fact for one in seen.memories for fact in _facts(one))]
    about = {"node": node, "time_ns": seen.time_ns, "job": job}
    return [about | fact | {"id": f"{seen.boot[:8]}:{fact['id']}"} for fact in found]


def _xids(seen: Seen) -> Iterator[Item]:
    serials = {one.uuid: one.serial for one in seen.memories}
    for message in kmsg.parse(seen.log):
        xid, age_s = kmsg.parse_xid(message.text), max(0.0, seen.since_boot_s - message.time_us / 1e6)
        if xid and age_s <= _OLDEST_S:
            uuid = seen.uuids.get(xid.bus_id, "")
            yield {
                "id": f"xid:{message.sequence}",
                "time_ns": seen.time_ns - round(age_s * 1e9),
                "kind": Kind.XID.value,
                "code": str(xid.code),
                "gpu": uuid,
                "serial": serials.get(uuid, ""),
                "message": f"Xid {xid.code} on PCI {xid.bus_id}: {xid.detail}"[:1000],
            }


def _facts(memory: Memory) -> Iterator[Item]:
    for kind, code, count in (
        (Kind.ECC, "uncorrected", memory.uncorrected),
        (Kind.REMAP, "uncorrectable", memory.remapped),
        (Kind.ECC, "sram-threshold", memory.sram_threshold),
        (Kind.REMAP, "pending", memory.remap_pending),
        (Kind.REMAP, "failed", memory.remap_failed),
    ):
        if count:
            yield _fact(memory, kind, code, int(count), int(count))
    if memory.corrected:  # they are many: told when they have doubled
        yield _fact(memory, Kind.ECC, "corrected", memory.corrected, memory.corrected.bit_length())


def _fact(memory: Memory, kind: Kind, code: str, count: int, step: int) -> Item:
    return {
        "id": f"{memory.uuid}:{code}:{step}",
        "kind": kind.value,
        "code": code,
        "gpu": memory.uuid,
        "serial": memory.serial,
        "value": float(count),
    }
