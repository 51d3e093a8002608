"""Network adapters: Ethernet, InfiniBand and Slingshot (CXI) counters below /sys/class, as the family `nic`.

Sources: the kernel's Documentation/ABI/testing/sysfs-class-net-statistics and sysfs-class-infiniband; the telemetry
files of HPE's Cassini driver, ``value@time``. InfiniBand counts data in words of four bytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.record.collector import Context, Entry, NotApplicable, rate
from piolet.tools import sysfs

_ETHERNET = 1
_WORD_BYTES = 4
_BITS = 8
_RATES = {"rx_bytes": "rx_bytes_per_s", "tx_bytes": "tx_bytes_per_s"} | {
    "rx_packets": "rx_packets_per_s",
    "tx_packets": "tx_packets_per_s",
}
_INFINIBAND = {
    "rx_packets": ("counters/port_rcv_packets",),
    "tx_packets": ("counters/port_xmit_packets",),
    "rx_errors": ("counters/port_rcv_errors",),
    "tx_dropped": ("counters/port_xmit_discards",),
    "tx_waits": ("counters/port_xmit_wait",),
    "link_downs": ("counters/link_downed",),
    "congestion_marks": ("hw_counters/rp_cnp_handled",),
    "retries": ("hw_counters/local_ack_timeout_err", "hw_counters/packet_seq_err", "hw_counters/rnr_nak_retry_err"),
}
_CXI = {
    "rx_bytes": ("hni_sts_rx_ok_octets",),
    "tx_bytes": ("hni_sts_tx_ok_octets",),
    "retries": ("pct_retry_srb_requests",),
    "tx_waits": tuple(f"hni_tx_paused_{lane}" for lane in range(8)),
}


@dataclass(frozen=True, slots=True)
class Port:
    """One adapter port: its counters by column name (bytes and packets without `_per_s`), speed and state."""

    kind: str
    counters: Mapping[str, int | None]
    speed_bytes_per_s: float | None = None
    up: bool | None = None


class NicCollector:
    """Samples every adapter of the node."""

    family = "nic"

    def __init__(self, context: Context) -> None:
        self._classes = context.sys / "class"
        self._before_s, self._before = time.monotonic(), read(self._classes)
        if not self._before:
            raise NotApplicable(
                "the node has no network adapter", where=str(self._classes), remedy="record outside a bare container"
            )

    def collect(self, time_ns: int) -> list[Entry]:
        """Return a row for each port."""
        now_s, after = time.monotonic(), read(self._classes)
        elapsed_s = now_s - self._before_s
        rows: list[Entry] = [
            ("nic", {"time_ns": time_ns, "nic": name} | derive(self._before.get(name), port, elapsed_s))
            for name, port in after.items()
        ]
        self._before_s, self._before = now_s, after
        return rows


def derive(before: Port | None, after: Port, elapsed_s: float) -> dict[str, Any]:
    """Return the columns of `nic` from two readings; a port that was not there before has no rates yet."""
    old = before.counters if before else {}
    rates = {
        column: rate(old.get(name), after.counters[name], elapsed_s)
        for name, column in _RATES.items()
        if name in after.counters
    }
    totals = {name: value for name, value in after.counters.items() if name not in _RATES}
    return rates | totals | {"kind": after.kind, "speed_bytes_per_s": after.speed_bytes_per_s, "up": after.up}


def read(classes: Path) -> dict[str, Port]:
    """Read every port below /sys/class. Virtual interfaces stand in only where there is no physical one."""
    interfaces = [path for path in sysfs.entries(classes / "net") if sysfs.number(path / "type") == _ETHERNET]
    physical = [path for path in interfaces if (path / "device").exists()]
    found = {path.name: _ethernet(path) for path in physical or interfaces}
    for device in sysfs.entries(classes / "infiniband"):
        for port in sysfs.entries(device / "ports"):
            found[f"{device.name}/{port.name}"] = _infiniband(port)
    return found | dict(_cxi(classes))


def _ethernet(path: Path) -> Port:
    names = ("bytes", "packets", "errors", "dropped")
    counters = {
        f"{way}_{name}": sysfs.number(path / f"statistics/{way}_{name}") for way in ("rx", "tx") for name in names
    }
    megabits = sysfs.number(path / "speed")
    return Port(
        "ethernet",
        counters | {"link_downs": sysfs.number(path / "carrier_down_count")},
        megabits * 1e6 / _BITS if megabits and megabits > 0 else None,
        {"up": True, "down": False, "lowerlayerdown": False}.get(sysfs.text(path / "operstate") or ""),
    )


def _infiniband(port: Path) -> Port:
    data = {way: sysfs.number(port / f"counters/port_{file}_data") for way, file in (("rx", "rcv"), ("tx", "xmit"))}
    counters = {f"{way}_bytes": None if words is None else words * _WORD_BYTES for way, words in data.items()}
    state = sysfs.number(port / "state")
    gigabits = re.match(r"([\d.]+) Gb/sec", sysfs.text(port / "rate") or "")
    return Port(
        "infiniband",
        counters | {name: _total(port, files) for name, files in _INFINIBAND.items()},
        float(gigabits[1]) * 1e9 / _BITS if gigabits else None,
        None if state is None else state == 4,  # noqa: PLR2004 - 4: ACTIVE
    )


def _cxi(classes: Path) -> Iterator[tuple[str, Port]]:
    for device in sysfs.entries(classes / "cxi"):
        telemetry = device / "device/telemetry"
        if telemetry.is_dir():
            yield device.name, Port("cxi", {name: _total(telemetry, files) for name, files in _CXI.items()})


def _total(directory: Path, files: tuple[str, ...]) -> int | None:
    """Return the sum of counters, None if none of them is there."""
    known = [value for file in files if (value := sysfs.number(directory / file)) is not None]
    return sum(known) if known else None
