"""Trackable resources: TRES strings such as ``cpu=8,mem=16000M,gres/gpu:h100=4``, and GRES as ``gpu:h100:4(S:0-1)``.

Memory is bytes here; Slurm's unit without a suffix is MiB, and its suffixes are powers of 1024 (slurm.conf(5)).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from piolet.core.errors import ParseError

_MIB = 1 << 20
_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<suffix>[KMGTPE]?)B?", re.ASCII | re.IGNORECASE)
_GRES = re.compile(
    r"(?P<name>[^:,(]+)(?::(?P<kind>[^:,(]*[^:,(\d][^:,(]*))?(?::(?P<count>\d+)(?P<suffix>[KMGTPE]?))?(?:\((?P<note>[^)]*)\))?",
    re.ASCII,
)
_BYTES = frozenset({"mem", "vmem", "fs/disk"})


@dataclass(frozen=True, slots=True)
class Gres:
    """Generic resources of a node: `indexes` are those allocated, where Slurm says so (IDX)."""

    name: str
    kind: str
    count: int
    indexes: tuple[int, ...] = ()


def parse_tres(text: str) -> dict[str, int]:
    """Return counts by name; memory and disk in bytes. ``(null)`` and the empty text have none."""
    if text.strip() in {"", "(null)", "N/A"}:
        return {}
    amounts = {}
    for item in text.strip().split(","):
        name, separator, amount = item.partition("=")
        if not (name and separator):
            raise ParseError("not a TRES string", source="TRES", text=text)
        amounts[name] = parse_bytes(amount) if name in _BYTES else _amount(amount, 1, 1000)
    return amounts


def format_tres(amounts: Mapping[str, int]) -> str:
    """Return the TRES string; memory in MiB where it is whole MiB, else in KiB rounded up."""
    return ",".join(f"{name}={_bytes(n) if name in _BYTES else n}" for name, n in amounts.items())


def parse_bytes(text: str) -> int:
    """Return bytes of ``16000M``, ``99G``, ``1.5T`` or, without a suffix, MiB."""
    return _amount(text, _MIB, 1024)


def gpus(amounts: Mapping[str, int]) -> int:
    """Return the GPUs in a parsed TRES string: the untyped count, else the sum of the typed ones."""
    typed = sum(n for name, n in amounts.items() if name.startswith("gres/gpu:"))
    return amounts.get("gres/gpu", typed)


def parse_gres(text: str) -> tuple[Gres, ...]:
    """Return the resources of ``gpu:h100:4(S:0-1),nvme:1`` or, with indexes, ``gpu:h100:2(IDX:0-1)``."""
    if text.strip() in {"", "(null)", "N/A"}:
        return ()
    items = re.split(r",(?![^(]*\))", text.strip())
    return tuple(_gres(item, text) for item in items)


def parse_indexes(text: str) -> tuple[int, ...]:
    """Return the numbers of ``0-1,3``.

    Raises:
        ParseError: the text has another form.
    """
    ends = [part.split("-") for part in text.split(",")]
    if not text.isascii() or any(len(pair) > 2 or not all(map(str.isdigit, pair)) for pair in ends):  # noqa: PLR2004 - first and last
        raise ParseError("not a list of indexes", source="indexes", text=text)
    return tuple(index for pair in ends for index in range(int(pair[0]), int(pair[-1]) + 1))


def _gres(item: str, text: str) -> Gres:
    match = _GRES.fullmatch(item)
    if not match:
        raise ParseError("not a GRES string", source="GRES", text=text)
    note = match["note"] or ""
    indexes = note.removeprefix("IDX:") if note.startswith("IDX:") else ""
    count = int(match["count"] or 1) * _SUFFIXES.get((match["suffix"] or "").upper(), 1)
    return Gres(match["name"], match["kind"] or "", count, parse_indexes(indexes) if indexes not in {"", "N/A"} else ())


def _amount(text: str, unit: int, base: int) -> int:
    match = _AMOUNT.fullmatch(text.strip())
    if not match:
        raise ParseError("not an amount", source="TRES", text=text)
    power = " KMGTPE".index(match["suffix"].upper() or " ")
    return int(float(match["number"]) * base**power) if power else int(float(match["number"]) * unit)


def _bytes(amount: int) -> str:
    return f"{amount // _MIB}M" if amount % _MIB == 0 else f"{-(-amount // 1024)}K"
