"""The kernel's log in the record form of /dev/kmsg, and the GPU driver's Xid messages in it.

A record is ``priority,sequence,microseconds,flags;text``; lines that begin with a space continue the record before.
The log is a character device, which gives one record a read, or a regular file of such lines.
Sources: Documentation/ABI/testing/dev-kmsg; "Xid Errors" of the NVIDIA driver documentation.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import StorageError, storage_errors

_RECORD = re.compile(r"(?P<prefix>\d+),(?P<sequence>\d+),(?P<time>\d+),[^;]*;(?P<text>.*)")
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?(?P<bus>[0-9A-Fa-f:.]+)\): (?P<code>\d+)(?:, *(?P<detail>.*))?")
_HEXADECIMAL = frozenset("0123456789abcdef")
_LEVELS = 8
_LONGEST_RECORD_BYTES = 8192
_LARGEST_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class KernelMessage:
    """One record: `level` is syslog's (0 emergency .. 7 debug), `time_us` counts from the boot."""

    level: int
    sequence: int
    time_us: int
    text: str


@dataclass(frozen=True, slots=True)
class Xid:
    """An error that the GPU driver reported: the code, the GPU's bus id as `bus_id` gives it, the driver's words."""

    code: int
    bus_id: str
    detail: str


def parse(text: str) -> list[KernelMessage]:
    """Parse the records of `text`; continuation lines and lines of any other form are left out."""
    return [message for line in text.splitlines() if (message := parse_record(line))]


def parse_record(line: str) -> KernelMessage | None:
    """Parse one record, or return None for a line of another form."""
    match = _RECORD.match(line)
    if not match:
        return None
    return KernelMessage(int(match["prefix"]) % _LEVELS, int(match["sequence"]), int(match["time"]), match["text"])


def parse_xid(text: str) -> Xid | None:
    """Return the Xid that a message reports, or None if it is about something else."""
    match = _XID.search(text)
    if not match:
        return None
    return Xid(int(match["code"]), bus_id(match["bus"]), (match["detail"] or "").strip())


def bus_id(text: str) -> str:
    """Return a PCI address as ``domain:bus:device`` in lower case, without the function.

    The driver logs ``0000:65:00``, NVML says ``00000000:65:00.0``: both become ``0:65:0``. Anything else is
    returned in lower case, as it is.
    """
    address, _, function = text.lower().partition(".")
    *domain, bus, device = ["", "", *address.split(":")][-3:]
    numbers = [each for each in (*domain, bus, device, function) if each]
    if not (bus and device and all(map(_HEXADECIMAL.issuperset, numbers))) or address.count(":") > 2:  # noqa: PLR2004 - three numbers
        return text.lower()
    return ":".join(f"{int(each or '0', 16):x}" for each in (*domain, bus, device))


def read_log(path: Path | str) -> str:
    """Return all records of a kernel log, a device or a file, without waiting for more."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    parts = []
    try:
        while part := _record(descriptor):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "replace")


def _record(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return b""
        except BrokenPipeError:
            continue  # records were overwritten before they were read; the next one is good


class KernelLog:
    """A kernel log opened at its end: `read_new` gives what was logged since.

    The position belongs to the open file, so a process that was forked after the opening goes on where another that
    shares it stopped.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._is_device = stat.S_ISCHR(os.fstat(descriptor).st_mode)

    @classmethod
    def open(cls, path: Path) -> KernelLog:
        """Open `path` at its end; a StorageError says why it cannot be read."""
        with storage_errors(path, "read the kernel log"):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(descriptor, 0, os.SEEK_END)
        return cls(descriptor)

    def read_new(self) -> list[KernelMessage]:
        """Return the records that were logged since the last call, without waiting for any."""
        with storage_errors("kernel log", "read the kernel log"):
            raw = b"".join(self._records()) if self._is_device else self._lines()
        return parse(raw.decode("utf-8", "replace"))

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def _records(self) -> Iterator[bytes]:
        while True:
            try:
                yield os.read(self.descriptor, _LONGEST_RECORD_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if (
                    error.errno != errno.EPIPE
                ):  # EPIPE: records were overwritten before they were read; the next is good
                    raise

    def _lines(self) -> bytes:
        """Read the whole lines after the position; a line that is still being written waits for the next call."""
        position = os.lseek(self.descriptor, 0, os.SEEK_CUR)
        if os.fstat(self.descriptor).st_size < position:
            position = os.lseek(self.descriptor, 0, os.SEEK_SET)
        raw = os.read(self.descriptor, _LARGEST_READ_BYTES)
        whole = raw[: raw.rfind(b"\n") + 1]
        os.lseek(self.descriptor, position + len(whole), os.SEEK_SET)
        return whole


def try_open(path: Path) -> KernelLog | StorageError:
    """Open `path` at its end, or return the error as a value for a caller that goes on without it."""
    try:
        return KernelLog.open(path)
    except StorageError as error:
        return error
