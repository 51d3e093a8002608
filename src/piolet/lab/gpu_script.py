"""Workload scripts: what a simulated GPU does, phase by phase, without a program.

One step a line (or between semicolons): a phase, its seconds, and `level=` or `mem=` as in a hint; `loop N` or
`loop forever` repeats up to its `end`; `#` starts a comment::

    startup 10
    loop 20
      compute 2 level=0.9
      communication 0.5
    end
    checkpoint 5
"""

from __future__ import annotations

import re

from piolet.core.errors import UsageError
from piolet.core.text import did_you_mean
from piolet.lab.gpu_models import Phase

# The C parser's own limits (gpusim/src/gpusim.h).
_STEPS_MAX = 64
_DEPTH_MAX = 4
_MIN_STEP_S = 0.01
_OPTION = re.compile(r"level=(?:0(?:\.\d+)?|1(?:\.0+)?|\.\d+)|mem=\d+")
_WORDS = ("loop", "end", *Phase)


def parse_script(text: str) -> tuple[str, ...]:
    """Return the steps of the script `text`, each in the timeline's own form.

    Raises:
        UsageError: an unknown step, a bad duration or option, an open or empty loop, or too many steps.
    """
    steps = tuple(step for line in text.splitlines() for step in _steps(line))
    if not 1 <= len(steps) <= _STEPS_MAX:
        raise UsageError(
            f"a workload script of {len(steps)} steps", remedy=f"write 1 to {_STEPS_MAX} steps; loops repeat them"
        )
    _check_loops(steps)
    return steps


def _steps(line: str) -> list[str]:
    return [_step(part.split()) for part in line.partition("#")[0].split(";") if part.strip()]


def _step(words: list[str]) -> str:
    if words[0] not in _WORDS:
        raise _wrong(words, did_you_mean(words[0], _WORDS))
    if words[0] == "end":
        good = len(words) == 1
    elif words[0] == "loop":
        good = len(words) == 2 and (words[1] == "forever" or _positive_integer(words[1]))  # noqa: PLR2004 - loop N
    else:
        good = len(words) > 1 and _seconds(words[1]) and all(_OPTION.fullmatch(word) for word in words[2:])
    if not good:
        raise _wrong(words, "write: PHASE SECONDS [level=0..1] [mem=BYTES], loop N, loop forever, or end")
    return " ".join(words)


def _positive_integer(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 10**9


def _seconds(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None and float(text) >= _MIN_STEP_S


def _check_loops(steps: tuple[str, ...]) -> None:
    depth = 0
    for before, step in zip(("", *steps), steps, strict=False):
        depth += step.startswith("loop") - (step == "end")
        if depth < 0 or depth > _DEPTH_MAX or (step == "end" and before.startswith("loop")):
            raise _wrong([step], f"every loop has steps and one end; at most {_DEPTH_MAX} loops stand in one another")
    if depth:
        raise _wrong(["loop"], "close it with end")


def _wrong(words: list[str], remedy: str) -> UsageError:
    return UsageError(f'not a step of a workload script: "{" ".join(words)}"', remedy=remedy)
