"""Lines that training frameworks print about a step: the step, the loss, and how long it took or how fast it was.

Written after the sources of each; examples are in tests/replay/training. What a framework calls them is translated:
`loss`, `step_time_s`, `gpu_tokens_per_s` (those of one GPU) and `mfu_ratio`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NUMBER = r"([-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|nan|inf))"
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a line says: the training step if it names one, and numbers by our names, in SI units."""

    step: int | None
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Format:
    """A framework: what its lines look like, where the step is, and each number with its factor to SI units."""

    line: re.Pattern[str]
    numbers: Mapping[str, tuple[re.Pattern[str], float]]


def _format(line: str, **numbers: tuple[str, float]) -> _Format:
    found = {name: (re.compile(before + _NUMBER), factor) for name, (before, factor) in numbers.items()}
    return _Format(re.compile(line), found)


FORMATS: Mapping[str, _Format] = {
    "Megatron-LM": _format(
        r" iteration +(?P<step>\d+)/ *\d+ \|.*\blm loss: ",
        loss=(r"\blm loss: ", 1),
        step_time_s=(r"elapsed time per iteration \(ms\): ", 1e-3),
    ),
    "torchtitan": _format(
        r"(?<!validate )\bstep: +(?P<step>\d+) +loss: ",
        loss=(r"\bloss: +", 1),
        gpu_tokens_per_s=(r"\btps: +", 1),
        mfu_ratio=(r"\bmfu: +", 1e-2),
    ),
    "NeMo": _format(
        r"\| global_step: (?P<step>\d+) \|.*\breduced_train_loss: ",
        loss=(r"\breduced_train_loss: ", 1),
        step_time_s=(r"\btrain_step_timing in s: ", 1),
    ),
    "Hugging Face Trainer": _format(r"^\{'loss': (?P<step>)", loss=(r"^\{'loss': '?", 1)),
    "nanoGPT": _format(
        r"^iter (?P<step>\d+): loss ",
        loss=(r": loss ", 1),
        step_time_s=(r", time (?=[\d.]+ms)", 1e-3),
        mfu_ratio=(r", mfu (?=\d)", 1e-2),
    ),
    "plain": _format(r"^step (?P<step>\d+) loss ", loss=(r" loss ", 1)),
}


def parse(line: str) -> Progress | None:
    """Return what a line says about a training step, None if it is of no framework that is known."""
    if "loss" not in line:
        return None
    text = _COLOUR.sub("", line)
    return next(filter(None, (_read(known, text) for known in FORMATS.values())), None)


def _read(known: _Format, text: str) -> Progress | None:
    match = known.line.search(text)
    if not match:
        return None
    found = {name: (pattern.search(text), factor) for name, (pattern, factor) in known.numbers.items()}
    values = {name: float(each[1].replace(",", "")) * factor for name, (each, factor) in found.items() if each}
    return Progress(int(match["step"]) if match["step"] else None, values) if values else None
