"""Other views than the model's: compute, memory and network weighed as somebody asks, and named as such."""

from __future__ import annotations

from collections.abc import Mapping

from piolet.core.errors import UsageError
from piolet.core.text import did_you_mean
from piolet.score.model import JobScore

AXES = ("compute", "memory", "network")


def parse(text: str) -> dict[str, float]:
    """Return the weights in ``compute=2,memory=1``, scaled to a sum of 1.

    Raises:
        UsageError: a word is no weight, names no axis or one twice, or nothing weighs anything.
    """
    weights: dict[str, float] = {}
    for word in text.split(","):
        name, _, number = (part.strip() for part in word.partition("="))
        if name not in AXES or name in weights:
            remedy = "name each axis once" if name in weights else did_you_mean(name, AXES)
            raise UsageError(f'"{name}" is not one more axis', where=f"--weights {text}", remedy=remedy)
        weights[name] = _weight(number, text)
    total = sum(weights.values())
    if not total:
        raise UsageError("nothing weighs anything", where=f"--weights {text}", remedy="give a weight above 0")
    return {name: weight / total for name, weight in weights.items() if weight}


def _weight(number: str, text: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise UsageError(
            f'"{number}" is not a weight', where=f"--weights {text}", remedy="write compute=0.5,memory=0.3,network=0.2"
        )
    return weight


def named(weights: Mapping[str, float]) -> str:
    """Return the weights in words, for whoever sees the number: it is not the score."""
    return ", ".join(f"{name} {100 * weight:.0f}\N{NO-BREAK SPACE}%" for name, weight in weights.items())


def expression(weights: Mapping[str, float]) -> str:
    """Return the weighted sum as SQL over columns of these names; null where one is."""
    return " + ".join(f"{weight!r} * {name}" for name, weight in weights.items())


def sensitivity(score: JobScore) -> tuple[tuple[str, float], tuple[str, float]] | None:
    """Return the axis that any weights can lower the view to, and the one they can raise it to, with their values.

    A weighted mean lies between its parts, so these two bound every view. None if an axis was not measured.
    """
    known = [(name, getattr(score, name)) for name in AXES]
    if any(value is None for _, value in known):
        return None
    return min(known, key=lambda each: each[1]), max(known, key=lambda each: each[1])


def weighed(score: JobScore, weights: Mapping[str, float]) -> float | None:
    """Return the weighted mean of a job's axes, 0..1; None if one of them was not measured."""
    axes = {"compute": score.compute, "memory": score.memory, "network": score.network}
    if any(axes[name] is None for name in weights):
        return None
    return sum((axes[name] or 0.0) * weight for name, weight in weights.items())
