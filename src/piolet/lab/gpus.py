"""The simulated GPUs of a node: write their inventory, hint at activity, inject and clear faults.

The state of a node's GPUs is a directory: `inventory` (what the GPUs are) and, per GPU, `gpuN.log`, an append-only
timeline of events, one a line: ``<unix_ns> <word> <arguments>``. The C library in gpusim/ computes every value from
the two; nothing here talks to it. See docs/reference/gpu-simulator.md.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from piolet import __version__
from piolet.core.errors import ParseError, UsageError, storage_errors
from piolet.core.files import write_text
from piolet.core.nouns import Gpu
from piolet.core.text import did_you_mean, plural
from piolet.lab.gpu_faults import FLAGS, Fault, FaultKind, parse_faults
from piolet.lab.gpu_models import GpuModel, Phase, find_model, models, profiles
from piolet.lab.gpu_script import parse_script

__all__ = [
    "DRIVER_VERSION",
    "FLAGS",
    "Fault",
    "FaultKind",
    "Gpu",
    "Phase",
    "arm_script",
    "clear",
    "hint",
    "inject",
    "models",
    "parse_faults",
    "read_inventory",
    "write_inventory",
]

DRIVER_VERSION = "550.54.15-sim"  # piolet.tools.nvml.is_simulated tells by the ending
_CUDA_VERSION = 12040  # what a driver 550 reports: CUDA 12.4
_TTL_MAX_S = 1e9  # the longest that the C parser takes
_NAMESPACE = uuid.UUID("6f1f7a52-2a3c-5d0e-9a57-70696f6c6574")
_XID_LINE = re.compile(rb"NVRM: Xid \(PCI:([0-9a-f:]+)\)")


def write_inventory(
    directory: Path, *, node: str, count: int, model: str = "h100", boot_ns: int | None = None
) -> tuple[Gpu, ...]:
    """Give `node` `count` fresh GPUs in `directory`: their inventory and empty timelines, as after a boot.

    UUIDs and serial numbers follow from the node's name. Counters start at `boot_ns` (default: now).

    Raises:
        UsageError: an unknown model, or more GPUs than a node of that model has.
        StorageError: the directory cannot be written.
    """
    kind = find_model(model)
    if not 1 <= count <= len(kind.bus_ids):
        raise UsageError(
            f"a node cannot have {plural(count, 'GPU')} of model {kind.key}",
            remedy=f"give a number from 1 to {len(kind.bus_ids)}",
        )
    with storage_errors(directory, "create"):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_text(directory / "inventory", _inventory(kind, node, count, time.time_ns() if boot_ns is None else boot_ns))
    for index in range(count):
        _fresh(_timeline(directory, index))
    return read_inventory(directory)


def read_inventory(directory: Path) -> tuple[Gpu, ...]:
    """Return the GPUs of the state directory; a StorageError if it has none."""
    lines = _inventory_lines(directory)
    values = dict(line.split(" ", 1) for line in lines if " " in line and not line.startswith("gpu "))
    return tuple(
        Gpu(index, fields["uuid"], values["name"], int(values["memory_mib"]) << 20, simulated=True)
        for index, fields in enumerate(_gpu_fields(lines))
    )


def inject(directory: Path, gpu: int, fault: Fault, *, time_ns: int | None = None) -> None:
    """Append `fault` to GPU `gpu`'s timeline, and what the driver would log to the node's kernel log.

    `time_ns` is when it happens (default: now).

    Raises:
        UsageError: there is no such GPU or no such link.
        StorageError: the state directory cannot be written.
    """
    if fault.kind is FaultKind.CLEAR:
        clear(directory, gpu, time_ns=time_ns)
        return
    bus_id = _bus_id(directory, gpu)
    _check_link(directory, fault)
    for event in fault.events():
        _append(directory, gpu, event, time_ns)
    message = fault.kernel_message(bus_id)
    if message:
        _log_to_kernel(directory.parent / "kmsg", message)


def clear(directory: Path, gpu: int, *, time_ns: int | None = None) -> None:
    """Undo every fault of GPU `gpu`, and strike its Xid lines out of the simulated kernel log.

    A real kernel log loses them at the reboot that heals the node; here each is overwritten in place, at the same
    length, so that readers that follow the file lose nothing.
    """
    bus_id = _bus_id(directory, gpu)
    _append(directory, gpu, FaultKind.CLEAR.value, time_ns)
    _strike(directory.parent / "kmsg", bus_id.rpartition(".")[0])


def hint(
    directory: Path,
    gpu: int,
    phase: Phase | str,
    *,
    level: float = 1.0,
    ttl_s: float = 5.0,
    memory_bytes: int | None = None,
    pid: int | None = None,
    time_ns: int | None = None,
) -> None:
    """Say what a workload does with GPU `gpu` from now on, for `ttl_s` seconds or until the next hint.

    `level` (0..1) scales the phase's profile; `memory_bytes` defaults to the phase's share; with `pid` the process
    is listed while it lives.
    """
    if not 0 <= level <= 1 or not 0 <= ttl_s <= _TTL_MAX_S:
        raise UsageError(
            f"a hint cannot have level {level:g} and ttl {ttl_s:g}", remedy="give level 0..1 and ttl >= 0 s"
        )
    words = [f"activity {_phase(phase)} level={level:g} ttl={ttl_s:g}"]
    if memory_bytes is not None:
        words.append(f"mem={memory_bytes}")
    if pid is not None:
        words.append(f"pid={pid} pidns={Path('/proc/self/ns/pid').stat().st_ino}")
    _bus_id(directory, gpu)
    _append(directory, gpu, " ".join(words), time_ns)


def arm_script(directory: Path, gpu: int, text: str, *, time_ns: int | None = None) -> None:
    """Let GPU `gpu` follow the workload script `text` from now on (see gpu_script for its form)."""
    _bus_id(directory, gpu)
    _append(directory, gpu, "script " + "; ".join(parse_script(text)), time_ns)


def _phase(name: Phase | str) -> Phase:
    try:
        return Phase(name)
    except ValueError:
        raise UsageError(f'no phase "{name}"', remedy=did_you_mean(str(name), Phase)) from None


def _inventory(kind: GpuModel, node: str, count: int, boot_ns: int) -> str:
    lines = [f"simulator {__version__}", f"driver {DRIVER_VERSION}", f"cuda {_CUDA_VERSION}"]
    lines += [f"boot_ns {boot_ns}", f"node {node}", f"model {kind.key}"]
    lines += [f"{name} {value}" for name, value in kind.numbers.items()]
    for phase, shares in profiles().items():
        lines.append(" ".join([f"profile {phase}", *(f"{name}={value:g}" for name, value in shares.items())]))
    lines += [_gpu_line(kind, node, index) for index in range(count)]
    return "\n".join(lines) + "\n"


def _gpu_line(kind: GpuModel, node: str, index: int) -> str:
    identity = uuid.uuid5(_NAMESPACE, f"{node}/gpu{index}")
    serial = 1_320_000_000_000 + identity.int % 1_000_000_000
    return f"gpu {index} minor={index} uuid=GPU-{identity} serial={serial} bus={kind.bus_ids[index]}"


def _inventory_lines(directory: Path) -> list[str]:
    path = directory / "inventory"
    with storage_errors(path, "read the GPU inventory"):
        return path.read_text(encoding="utf-8").splitlines()


def _gpu_fields(lines: list[str]) -> list[dict[str, str]]:
    return [dict(word.split("=", 1) for word in line.split()[2:]) for line in lines if line.startswith("gpu ")]


def _bus_id(directory: Path, gpu: int) -> str:
    fields = _gpu_fields(_inventory_lines(directory))
    if not fields:
        raise ParseError("the GPU inventory lists no GPU", source=str(directory / "inventory"))
    if not 0 <= gpu < len(fields):
        raise UsageError(f"there is no GPU {gpu}", where=str(directory), remedy=f"its GPUs are 0 to {len(fields) - 1}")
    return fields[gpu]["bus"]


def _check_link(directory: Path, fault: Fault) -> None:
    if fault.kind is not FaultKind.NVLINK_DOWN:
        return
    values = dict(line.split(" ", 1) for line in _inventory_lines(directory) if " " in line)
    if int(fault.argument) >= int(values["nvlinks"]):
        raise UsageError(
            f"there is no NVLink {fault.argument}", remedy=f"its links are 0 to {int(values['nvlinks']) - 1}"
        )


def _timeline(directory: Path, gpu: int) -> Path:
    return directory / f"gpu{gpu}.log"


def _fresh(path: Path) -> None:
    with storage_errors(path, "create"):
        path.unlink(missing_ok=True)
        _touch(path)


def _touch(path: Path) -> None:
    path.touch()
    path.chmod(0o666)  # any user of the lab may write hints and faults, as any user may run a kernel


def _append(directory: Path, gpu: int, event: str, time_ns: int | None) -> None:
    line = f"{time.time_ns() if time_ns is None else time_ns} {event}\n".encode()
    path = _timeline(directory, gpu)
    with storage_errors(path, "append to the timeline"):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


def _log_to_kernel(path: Path, message: str) -> None:
    """Append a record in the form of /dev/kmsg: priority, sequence, microseconds since boot, flags; text."""
    with _locked(path) as handle:
        sequence = sum(1 for _ in _lines(handle))
        record = f"6,{sequence},{time.monotonic_ns() // 1000},-;{message}\n"
        os.write(handle, record.encode())


def _strike(path: Path, address: str) -> None:
    if not path.exists():
        return
    with _locked(path, append=False) as handle:
        for offset, line in _lines(handle):
            found = _XID_LINE.search(line)
            if found and found[1].decode() == address:
                os.pwrite(handle, b"NVRM: xid (cleared)".ljust(len(found[0]), b"."), offset + found.start())


@contextmanager
def _locked(path: Path, *, append: bool = True) -> Iterator[int]:
    with storage_errors(path, "write the simulated kernel log"):
        if not path.exists():
            _touch(path)
        handle = os.open(path, os.O_RDWR | (os.O_APPEND if append else 0))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)


def _lines(handle: int) -> Iterator[tuple[int, bytes]]:
    content = os.pread(handle, os.fstat(handle).st_size, 0)
    offset = 0
    for line in content.splitlines(keepends=True):
        yield offset, line
        offset += len(line)
