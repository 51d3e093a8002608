"""The attainable ceilings of each GPU model: data from ceilings.toml, every number with its source."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PIPES = ("tensor", "fp64", "fp32", "fp16")
"""Compute pipes; each has a column `<pipe>_active_ratio` and a ceiling of that name."""

RATES = ("nvlink_bytes_per_s", "pcie_bytes_per_s")
"""Links; the ceiling is the peak of one direction."""

KEYS = (*PIPES, "dram", *RATES)

PEAK = "bf16_flop_per_s"

_FILE = Path(__file__).with_name("ceilings.toml")


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The highest value that good code reaches (a ratio 0..1, or bytes per second), and who says so."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The ceilings of one GPU model by key (see KEYS). `known` is False for the documented default.

    `peak` is the dense bf16 rate of the tensor cores in FLOP per second, which the MFU is a share of.
    """

    name: str
    known: bool
    by_key: Mapping[str, Ceiling]
    peak: Ceiling | None = None

    @property
    def peak_flop_per_s(self) -> float | None:
        """The value of the peak, None if it is not known."""
        return self.peak.value if self.peak else None

    def __getitem__(self, key: str) -> float:
        return self.by_key[key].value


def of_model(model: str) -> Ceilings:
    """Return the ceilings of the GPU that the driver calls `model`; the default for one that nobody described."""
    document = _document()
    for entry in document["model"]:
        if re.search(entry["pattern"], model, re.IGNORECASE):
            return _ceilings(entry["name"], entry, known=True)
    return _ceilings("default", {}, known=False)


def all_ceilings() -> tuple[Ceilings, ...]:
    """Return the default and every described model, in the order of matching."""
    described = (_ceilings(entry["name"], entry, known=True) for entry in _document()["model"])
    return (_ceilings("default", {}, known=False), *described)


def _ceilings(name: str, entry: Mapping[str, Any], *, known: bool) -> Ceilings:
    values = _document()["default"] | {key: entry[key] for key in KEYS if key in entry}
    peak = entry.get(PEAK)
    return Ceilings(name, known, {key: _ceiling(values[key]) for key in KEYS}, _ceiling(peak) if peak else None)


def _ceiling(value: Mapping[str, Any]) -> Ceiling:
    return Ceiling(value["ceiling"], _document()["source"][value["source"]])


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))
