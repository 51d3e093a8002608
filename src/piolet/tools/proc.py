"""Parsers of /proc texts: pure functions from what the kernel prints to typed counters.

Counters are totals since the boot; rates are differences that the caller takes. Source: proc(5), Documentation/
accounting/psi.rst and admin-guide/iostats.rst of the kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from piolet.core.errors import ParseError

SECTOR_BYTES = 512
"""The unit of /proc/diskstats, whatever the device's own sector size."""

_NOT_A_DISK = re.compile(r"(loop|ram|zram|sr|fd|dm-|md)\d+|(sd|hd|vd|xvd)[a-z]+\d+|(nvme\d+n\d+|mmcblk\d+|nbd\d+)p\d+")
_CPU_FIELDS = 8


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Time of all CPUs together, in clock ticks: neither idle nor waiting, idle, waiting for I/O."""

    busy: int
    idle: int
    iowait: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the host in bytes."""

    total_bytes: int
    available_bytes: int

    @property
    def used_bytes(self) -> int:
        """What programs cannot get: total less available."""
        return self.total_bytes - self.available_bytes


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that went in (received, read) and out (sent, written)."""

    in_bytes: int
    out_bytes: int


def parse_stat(text: str) -> CpuTimes:
    """Parse the first line of /proc/stat. Guest time is part of user time there and is not added again."""
    words = text.partition("\n")[0].split()
    if len(words) <= _CPU_FIELDS or words[0] != "cpu":
        raise ParseError("no line of all CPUs", source="/proc/stat", text=text)
    user, nice, system, idle, iowait, irq, softirq, steal = _integers(words[1 : _CPU_FIELDS + 1], "/proc/stat")
    return CpuTimes(user + nice + system + irq + softirq + steal, idle, iowait)


def parse_meminfo(text: str) -> Memory:
    """Parse /proc/meminfo."""
    fields = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
    try:
        return Memory(int(fields["MemTotal"]) * 1024, int(fields["MemAvailable"]) * 1024)
    except KeyError as error:
        raise ParseError(f"no field {error}", source="/proc/meminfo", text=text) from error


def parse_pressure(text: str) -> int:
    """Parse a file of /proc/pressure: microseconds in which some task had to wait."""
    match = re.search(r"^some .*\btotal=(\d+)", text, re.MULTILINE)
    if not match:
        raise ParseError("no line `some`", source="/proc/pressure", text=text)
    return int(match[1])


def parse_net_dev(text: str) -> dict[str, Traffic]:
    """Parse /proc/net/dev: received and sent bytes of each interface but loopback."""
    found = {}
    for line in text.splitlines()[2:]:
        name, colon, rest = line.rpartition(":")
        words = rest.split()
        if not colon or len(words) < 9:  # noqa: PLR2004 - bytes sent is the ninth
            raise ParseError("not an interface", source="/proc/net/dev", text=line)
        received, sent = _integers((words[0], words[8]), "/proc/net/dev")
        found[name.strip()] = Traffic(received, sent)
    found.pop("lo", None)
    return found


def parse_diskstats(text: str) -> dict[str, Traffic]:
    """Parse /proc/diskstats: read and written bytes of each whole disk.

    Partitions and devices that lie on others (loop, device mapper, RAID) would count the same bytes twice.
    """
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10:  # noqa: PLR2004 - sectors written is the tenth
            raise ParseError("not a block device", source="/proc/diskstats", text=line)
        if not _NOT_A_DISK.fullmatch(words[2]):
            read, written = _integers((words[5], words[9]), "/proc/diskstats")
            found[words[2]] = Traffic(read * SECTOR_BYTES, written * SECTOR_BYTES)
    return found


def _integers(words: list[str] | tuple[str, ...], source: str) -> list[int]:
    try:
        return [int(word) for word in words]
    except ValueError as error:
        raise ParseError("not a counter", source=source, text=" ".join(words)) from error
