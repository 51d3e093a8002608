"""DeepSpeed: `mp_rank_XX_model_states.pt` and, with ZeRO, one `zero_pp_rank_N_mp_rank_XX_optim_states.pt` a rank.

How many there must be stands in the model states: dp_world_size, mp_world_size and the stage of ZeRO in ds_config.
ZeRO 3 writes the model states once a rank too. Names as DeepSpeed writes them, from memory: no DeepSpeed was run.
Not judged: the experts of mixtures, which have files of their own; those that are there must be whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from piolet.data.checkpoints import torch_files
from piolet.data.checkpoints.listing import Listing

NAME = "DeepSpeed"
_MODEL = re.compile(r"(?:zero_pp_rank_(?P<dp>\d+)_)?mp_rank_(?P<mp>\d+)_model_states\.pt")
_OPTIMIZER = re.compile(r"(?:[a-z]+\d+_)?zero_pp_rank_(?P<dp>\d+)_mp_rank_(?P<mp>\d+)_optim_states\.pt")
_FULLY_SHARDED = 3
_MAX_RANKS = 1_000_000
"""More is no number of ranks but damage."""


@dataclass(frozen=True, slots=True)
class _Ranks:
    """How many files there must be: ranks of data and of model parallelism, and the stage of ZeRO (0: none)."""

    data: int
    model: int
    stage: int


def holds(listing: Listing) -> bool:
    """Return whether the directory is of this format, complete or torn."""
    return any(_MODEL.fullmatch(each) or _OPTIMIZER.fullmatch(each) for each in listing.top())


def faults(listing: Listing) -> Iterator[str]:
    """Yield what is missing; files that are cut off are told by `torch_files`."""
    states = sorted(each for each in listing.top() if _MODEL.fullmatch(each))
    if not states:
        yield "there are no model states"
        return
    try:
        ranks = _ranks(torch_files.load(listing, states[0]))
    except ValueError as error:
        yield f"{states[0]} cannot be read: {error}"
        return
    yield from _absent("model states", _model_ranks(states, ranks), _expected(ranks, ranks.stage >= _FULLY_SHARDED))
    optimizers = {(int(one["dp"]), int(one["mp"])) for one in map(_OPTIMIZER.fullmatch, listing.top()) if one}
    if ranks.stage or optimizers:
        yield from _absent("optimizer states", optimizers, _expected(ranks, sharded=True))


def _ranks(state: Any) -> _Ranks:  # noqa: ANN401 - out of a pickle
    try:
        ranks = _Ranks(
            int(state["dp_world_size"]),
            int(state["mp_world_size"]),
            int((state.get("ds_config") or {}).get("zero_optimization", {}).get("stage", 0)),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("it does not say how many ranks there are") from error
    if not 0 < ranks.data * ranks.model <= _MAX_RANKS:
        raise ValueError(f"{ranks.data} times {ranks.model} ranks")
    return ranks


def _model_ranks(names: list[str], ranks: _Ranks) -> set[tuple[int, int]]:
    found = [match for match in map(_MODEL.fullmatch, names) if match]
    sharded = ranks.stage >= _FULLY_SHARDED
    return {(int(one["dp"] or 0) if sharded else 0, int(one["mp"])) for one in found}


def _expected(ranks: _Ranks, sharded: bool) -> Iterator[tuple[int, int]]:  # noqa: FBT001 - read with its name
    return product(range(ranks.data if sharded else 1), range(ranks.model))


def _absent(what: str, found: set[tuple[int, int]], expected: Iterator[tuple[int, int]]) -> Iterator[str]:
    for data, model in expected:
        if (data, model) not in found:
            yield f"the {what} of data rank {data}, model rank {model} are missing"
