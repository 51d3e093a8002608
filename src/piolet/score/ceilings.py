"""The attainable ceilings of each GPU model: data from ceilings.toml, every number with its source."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from piolet.core import toml
from piolet.core.config import site_file, user_file
from piolet.core.errors import ConfigError

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


@cache
def of_model(model: str) -> Ceilings:
    """Return the ceilings of the GPU that the driver calls `model`; the default for one that nobody described.

    What was measured here (see calibrate) goes before what is published, counter by counter.

    Raises:
        ConfigError: a file of measured ceilings is wrong.
    """
    entry = next((each for each in _document()["model"] if re.search(each["pattern"], model, re.IGNORECASE)), None)
    measured = _measured().get(model, {})
    name = (entry["name"] if entry else "default") + (" as measured here" if measured else "")
    return _ceilings(name, (entry or {}) | measured, known=bool(entry or measured))


def measured_files(environ: Mapping[str, str]) -> tuple[Path, Path]:
    """Return where measured ceilings are kept: the site's file, then the user's, which goes before it."""
    return tuple(path.with_name("ceilings.toml") for path in (site_file(environ), user_file(environ)))  # type: ignore[return-value]


@cache
def _measured() -> dict[str, dict[str, Any]]:
    """The measured ceilings by the driver's name of the GPU and counter."""
    found: dict[str, dict[str, Any]] = {}
    for path in measured_files(os.environ):
        for model, keys in toml.read(path).data.items() if path.exists() else ():
            found[model] = found.get(model, {}) | _checked(path, model, keys)
    return found


def _checked(path: Path, model: str, keys: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever somebody wrote
    for key, value in keys.items() if isinstance(keys, dict) else ((model, keys),):
        number = value.get("ceiling") if isinstance(value, dict) and isinstance(value.get("source"), str) else None
        if key not in KEYS or not isinstance(number, int | float) or number <= 0:
            raise ConfigError(
                "not a ceiling",
                path=path,
                key=f"{model}.{key}",
                remedy='write tensor = { ceiling = 0.91, source = "where from" }, or remove the file',
            )
    return dict(keys)


def forget() -> None:
    """Read measured ceilings anew, after they were written."""
    of_model.cache_clear()
    _measured.cache_clear()


def all_ceilings() -> tuple[Ceilings, ...]:
    """Return the default and every described model, in the order of matching."""
    described = (_ceilings(entry["name"], entry, known=True) for entry in _document()["model"])
    return (_ceilings("default", {}, known=False), *described)


def _ceilings(name: str, entry: Mapping[str, Any], *, known: bool) -> Ceilings:
    values = _document()["default"] | {key: entry[key] for key in KEYS if key in entry}
    peak = entry.get(PEAK)
    return Ceilings(name, known, {key: _ceiling(values[key]) for key in KEYS}, _ceiling(peak) if peak else None)


def _ceiling(value: Mapping[str, Any]) -> Ceiling:
    return Ceiling(value["ceiling"], _document()["source"].get(value["source"], value["source"]))


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))
