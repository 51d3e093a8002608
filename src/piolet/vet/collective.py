"""One rank of a measured all-reduce: `python -m piolet.vet.collective JSON` prints one line of JSON and ends.

A program of its own, because each GPU needs a process, and because what torch leaves behind must end with it. All ranks
meet at a store of the first one, which listens on one address only. Whatever happens, the alarm ends this process.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_PARTING_S = 2.0
"""Seconds that the first rank keeps its store for the others, once all is said."""

_RETRY_S = 0.1
_FLOAT_BYTES = 4
_SPREAD = 7
"""Ranks contribute 1 to 7, so that sums stay exact in float32 up to two million ranks."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rank is to do; `gpu` is -1 on the host, `nodes` are those of the group, with `per_node` ranks each."""

    rank: int
    nodes: tuple[str, ...]
    per_node: int
    gpu: int
    address: str
    port: int
    sizes_mib: tuple[int, ...]
    warmup: int
    repetitions: int
    timeout_s: float

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self.nodes) * self.per_node


class Apart(Exception):  # noqa: N818 - the state of the group
    """The ranks did not come together; the message says who is missing."""


def main() -> None:
    """Measure, print and end without waiting for what torch still holds."""
    asked = Asked(**json.loads(sys.argv[1]))
    signal.alarm(math.ceil(asked.timeout_s))
    try:
        found = measured(asked)
    except Exception as error:  # noqa: BLE001 - the check runner: whatever it is, it is the outcome
        said = str(error) if isinstance(error, Apart) else f"{type(error).__name__}: {error}"
        found = {"trouble": said.strip().split("\n")[0][:300]}
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    sys.stdout.flush()
    os._exit(0)


def measured(asked: Asked) -> dict[str, Any]:
    """Return the seconds of each repetition of each size, and how many sums were wrong."""
    until_s = time.monotonic() + asked.timeout_s
    torch, dist = importlib.import_module("torch"), importlib.import_module("torch.distributed")
    with _together(dist, asked) as store:
        left = timedelta(seconds=max(1.0, until_s - time.monotonic() - 2 * _PARTING_S))
        backend = "gloo" if asked.gpu < 0 else "nccl"
        dist.init_process_group(backend, store=store, rank=asked.rank, world_size=asked.size, timeout=left)
        rounds = [_of_size(torch, dist, asked, mib) for mib in asked.sizes_mib]
    return {"durations_s": [each for each, _ in rounds], "wrong": sum(wrong for _, wrong in rounds)}


@contextmanager
def _together(dist: Any, asked: Asked) -> Iterator[Any]:  # noqa: ANN401 - a module
    """Give the store once all ranks are there; the first rank waits for the others before it closes it."""
    patience = timedelta(seconds=asked.timeout_s / 2)
    store = _store(dist, asked, patience)
    try:
        _gather(store, asked, patience)
        yield dist.PrefixStore("group", store)
    finally:
        with suppress(RuntimeError):  # the first rank may be gone
            store.set(f"done/{asked.rank}", "")
        if asked.rank == 0:
            _part(store, asked)


def _store(dist: Any, asked: Asked, patience: timedelta) -> Any:  # noqa: ANN401 - a module and its object
    options: dict[str, Any] = {"timeout": patience, "wait_for_workers": False}
    if asked.rank == 0:
        listening = socket.create_server((asked.address, asked.port), backlog=max(128, asked.size))
        return dist.TCPStore(asked.address, asked.port, is_master=True, master_listen_fd=listening.detach(), **options)
    if not _listens(asked, patience):
        where = f"{asked.nodes[0]} ({asked.address}:{asked.port})"
        raise Apart(f"the first rank, on {where}, was not there within {patience.total_seconds():g} s")
    return dist.TCPStore(asked.address, asked.port, is_master=False, **options)


def _listens(asked: Asked, patience: timedelta) -> bool:
    """Wait for the first rank to listen; torch itself would wait for twice its time-out."""
    until_s = time.monotonic() + patience.total_seconds()
    while (left_s := until_s - time.monotonic()) > 0:
        with suppress(OSError), socket.create_connection((asked.address, asked.port), timeout=left_s):
            return True
        time.sleep(_RETRY_S)
    return False


def _gather(store: Any, asked: Asked, patience: timedelta) -> None:  # noqa: ANN401 - an object of torch
    """Come together, or raise Apart: the first rank counts, and tells all others what it has seen."""
    store.set(f"here/{asked.rank}", "")
    if asked.rank == 0:
        store.set("missing", ",".join(_missing(store, asked, patience)))
    store.wait(["missing"], patience * 1.2)
    missing = store.get("missing").decode()
    if missing:
        raise Apart(f"no rank of {missing} came within {patience.total_seconds():g} s")


def _missing(store: Any, asked: Asked, patience: timedelta) -> list[str]:  # noqa: ANN401 - same
    """Return the nodes that have a rank that did not come in time."""
    keys = {f"here/{rank}": asked.nodes[rank // asked.per_node] for rank in range(asked.size)}
    try:
        store.wait(list(keys), patience)
    except RuntimeError:
        return sorted({node for key, node in keys.items() if not store.check([key])})
    return []


def _part(store: Any, asked: Asked) -> None:  # noqa: ANN401 - same
    present = [rank for rank in range(asked.size) if store.check([f"here/{rank}"])]
    until_s = time.monotonic() + _PARTING_S
    while time.monotonic() < until_s and not store.check([f"done/{rank}" for rank in present]):
        time.sleep(0.02)


def _of_size(torch: Any, dist: Any, asked: Asked, mib: int) -> tuple[list[float], int]:  # noqa: ANN401 - modules
    """Return the seconds of each repetition with `mib` MiB of float32 a rank, and how many sums are wrong."""
    device = "cpu" if asked.gpu < 0 else f"cuda:{asked.gpu}"
    wait = (lambda: None) if asked.gpu < 0 else (lambda: torch.cuda.synchronize(device))
    if asked.gpu >= 0:
        torch.cuda.set_device(device)
    data = torch.zeros(mib * (1 << 20) // _FLOAT_BYTES, dtype=torch.float32, device=device)
    for _ in range(asked.warmup):
        dist.all_reduce(data)
    durations_s = []
    for _ in range(asked.repetitions):
        dist.barrier()
        wait()
        started_s = time.perf_counter()
        dist.all_reduce(data)
        wait()
        durations_s.append(time.perf_counter() - started_s)
    data.fill_(asked.rank % _SPREAD + 1)
    dist.all_reduce(data)
    expected = sum(rank % _SPREAD + 1 for rank in range(asked.size))
    return durations_s, int((data != expected).sum())


if __name__ == "__main__":
    main()
