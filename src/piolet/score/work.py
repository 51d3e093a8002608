"""What the GPUs did for the program: tokens, tokens per second, MFU, energy per token.

MFU = 6 x parameters x tokens/s / peak (PaLM, appendix B): forward and backward pass of a dense transformer, attention
left out. Nothing is guessed: without parameters, tokens or a peak it stays unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from piolet.core.errors import UsageError
from piolet.logbook.reader import Reader
from piolet.score.ceilings import of_model
from piolet.score.model import JobScore

FLOP_PER_PARAMETER_AND_TOKEN = 6
_ENDINGS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True, slots=True)
class Work:
    """What the program told of its work, and what follows; None is not known.

    `tokens` are those of all reported steps. `mfu_told` says that the program gave the MFU itself.
    """

    tokens: float | None = None
    tokens_per_s: float | None = None
    parameters: float | None = None
    mfu: float | None = None
    mfu_told: bool = False
    energy_per_token_j: float | None = None


NOTHING_TOLD = Work()


def work(reader: Reader, score: JobScore, parameters: float | None = None) -> Work:
    """Return the work of a scored job; `parameters` goes before what the program told of its model."""
    told = _medians(reader)
    tokens, reported = _tokens(reader)
    printed = told.get("gpu_tokens_per_s")
    per_s = reported or told.get("tokens_per_s") or (printed * len(score.gpus) if printed else None)
    parameters = parameters or told.get("parameters")
    computed = mfu(parameters, per_s, [gpu.model for gpu in score.gpus])
    return Work(
        tokens=tokens,
        tokens_per_s=per_s,
        parameters=parameters,
        mfu=told.get("mfu_ratio") if computed is None else computed,
        mfu_told=computed is None and "mfu_ratio" in told,
        energy_per_token_j=_energy_per_token_j(score, tokens, per_s),
    )


def mfu(parameters: float | None, tokens_per_s: float | None, models: Sequence[str]) -> float | None:
    """Return the model FLOP utilisation of GPUs of these models; None if the peak of one is not known."""
    peaks = [of_model(model).peak_flop_per_s for model in models]
    known = [peak for peak in peaks if peak]
    if not parameters or not tokens_per_s or not known or len(known) < len(peaks):
        return None
    return FLOP_PER_PARAMETER_AND_TOKEN * parameters * tokens_per_s / sum(known)


def parse_parameters(text: str) -> float:
    """Return the number in ``7B``, ``350M``, ``1.3e9`` or ``6738415616``.

    Raises:
        UsageError: it is not a positive number with such an ending.
    """
    number, ending = (text[:-1], text[-1].upper()) if text[-1:].upper() in _ENDINGS else (text, "")
    try:
        found = float(number) * _ENDINGS.get(ending, 1.0)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise UsageError(
            f'"{text}" is not a number of parameters', where="--parameters", remedy="write 7B, 350M or 1.3e9"
        )
    return found


def _energy_per_token_j(score: JobScore, tokens: float | None, per_s: float | None) -> float | None:
    """The energy of the GPUs per token: of the whole job if its tokens are known, else their power over the rate."""
    if tokens and score.energy_j:
        return score.energy_j / tokens
    power_w = [gpu.power_w for gpu in score.gpus if gpu.power_w is not None]
    return sum(power_w) / per_s if per_s and power_w and len(power_w) == len(score.gpus) else None


def _medians(reader: Reader) -> dict[str, float]:
    found = reader.database.execute(
        "SELECT name, median(value) FROM user WHERE isfinite(value) AND value > 0 "
        "AND name IN ('tokens_per_s', 'gpu_tokens_per_s', 'mfu_ratio', 'parameters') GROUP BY name"
    ).fetchall()
    return {str(name): float(value) for name, value in found}


def _tokens(reader: Reader) -> tuple[float | None, float | None]:
    """Return the sum of the tokens that all ranks reported by step, and how many a second that is after the first."""
    found = reader.database.execute(
        """
        WITH steps AS (
            SELECT step, sum(value) AS tokens, max(time_ns) AS time_ns FROM (
                SELECT step, rank, arg_max(value, time_ns) AS value, max(time_ns) AS time_ns FROM user
                WHERE name = 'tokens' AND step IS NOT NULL AND isfinite(value) AND value > 0 GROUP BY ALL)
            GROUP BY step
        )
        SELECT sum(tokens), sum(tokens) - arg_min(tokens, time_ns), (max(time_ns) - min(time_ns)) / 1e9 FROM steps
        """
    ).fetchall()
    tokens, later, seconds = found[0]
    return (float(tokens), later / seconds if seconds else None) if tokens else (None, None)
