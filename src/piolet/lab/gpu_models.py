"""The GPU models and activity phases that the simulator knows, read from gpu_models.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from piolet.core.errors import UsageError
from piolet.core.text import did_you_mean

_MIB = 1 << 20


class Phase(StrEnum):
    """What a workload does with its GPU; gpu_models.toml gives each phase's profile."""

    IDLE = "idle"
    STARTUP = "startup"
    COMPUTE = "compute"
    COMMUNICATION = "communication"
    INPUT = "input"
    CHECKPOINT = "checkpoint"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class GpuModel:
    """A GPU model: `numbers` are the simulator's parameters as the inventory carries them."""

    key: str
    name: str
    bus_ids: tuple[str, ...]
    nvlinks: int
    memory_mib: int
    numbers: Mapping[str, str | int | float]
    sources: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        """Size of the framebuffer in bytes."""
        return self.memory_mib * _MIB


@cache
def models() -> Mapping[str, GpuModel]:
    """Return every model under its key (`h100`, ...)."""
    return {key: _model(key, table) for key, table in _document()["models"].items()}


def find_model(key: str) -> GpuModel:
    """Return the model `key`; an unknown one is a UsageError that names those there are."""
    try:
        return models()[key.lower()]
    except KeyError:
        raise UsageError(f'no GPU model "{key}"', remedy=did_you_mean(key, models())) from None


@cache
def profiles() -> Mapping[Phase, Mapping[str, float]]:
    """Return, per phase, the shares (0..1) of its profile; what is not named is 0."""
    phases = _document()["phases"]
    return {phase: {name: value for name, value in phases[phase].items() if name != "source"} for phase in Phase}


def _model(key: str, table: dict[str, Any]) -> GpuModel:
    numbers = {name: value for name, value in table.items() if isinstance(value, str | int | float)}
    return GpuModel(
        key,
        table["name"],
        tuple(table["bus_ids"]),
        table["nvlinks"],
        table["memory_mib"],
        numbers,
        tuple(table["sources"]),
    )


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
