"""How often each family is sampled: what the user says of it, else its own pace, else that of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from piolet.core.settings import rate


def intervals(rates: Sequence[str]) -> dict[str, float]:
    """Return the seconds between samples of each family in `rates`, the setting, such as ``gpu=10``."""
    return {family: float(1 / hertz) for family, hertz in map(rate, rates)}


def interval_s(collector: Any, usual_s: float, chosen: Mapping[str, float]) -> float:  # noqa: ANN401 - a plug-in
    """Return the seconds between samples of a collector: those `chosen` for its family, else at least its own pace."""
    given = chosen.get(getattr(collector, "family", ""))
    return given or max(usual_s, getattr(collector, "least_interval_s", 0.0))
