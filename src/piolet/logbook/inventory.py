"""What the family `inventory` says of GPUs and drivers; written by whoever knows, read where job.json does not tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from piolet.core.nouns import Gpu
from piolet.logbook.layout import Logbook

if TYPE_CHECKING:
    from piolet.logbook.reader import Reader

_DEVICE = "gpu"


def of_gpus(gpus: Iterable[Gpu]) -> Iterator[dict[str, str]]:
    """Yield the rows, without time and node, that tell which GPUs these are."""
    for gpu in gpus:
        facts = {"uuid": gpu.uuid, "model": gpu.model, "memory_bytes": gpu.memory_bytes, "simulated": gpu.simulated}
        for name, value in facts.items():
            if value not in {"", None, False}:
                yield {"device": f"{_DEVICE}{gpu.index}", "name": name, "value": str(value)}


def gpus(logbook: Logbook) -> dict[str, tuple[Gpu, ...]]:
    """Return the GPUs of each node as the inventory last told them."""
    from piolet.logbook.reader import read  # noqa: PLC0415 - loads DuckDB, which a recorder does without

    with read(logbook) as reader:
        rows = reader.database.execute(
            "SELECT node, device, map_from_entries(list((name, value))) FROM "
            "(SELECT node, device, name, arg_max(value, time_ns) AS value FROM inventory "
            "WHERE regexp_full_match(device, ?) GROUP BY ALL) GROUP BY ALL ORDER BY node, device",
            [f"{_DEVICE}[0-9]+"],
        ).fetchall()
    found: dict[str, list[Gpu]] = {}
    for node, device, facts in rows:
        found.setdefault(node, []).append(_gpu(int(device.removeprefix(_DEVICE)), facts))
    return {node: tuple(sorted(each, key=lambda gpu: gpu.index)) for node, each in found.items()}


def _gpu(index: int, facts: Mapping[str, Any]) -> Gpu:
    memory = facts.get("memory_bytes")
    simulated = facts.get("simulated") == "True"
    return Gpu(index, facts.get("uuid", ""), facts.get("model", ""), int(memory) if memory else None, simulated)


def drivers(reader: Reader) -> dict[str, list[str]]:
    """Return the nodes by the driver of GPUs that they told of, a node twice whose driver changed."""
    rows = reader.database.execute(
        "SELECT value, list(DISTINCT node ORDER BY node) FROM inventory "
        "WHERE device = 'node' AND name LIKE '%\\_driver' ESCAPE '\\' GROUP BY value ORDER BY value"
    ).fetchall()
    return {str(driver): nodes for driver, nodes in rows}
