"""A made training job, second by second: every number has noise of the size that sensors have, the hardest to store."""

from __future__ import annotations

import random
from collections.abc import Iterator

CHECKPOINT_EVERY_S, CHECKPOINT_S = 120, 8
MIB = 1 << 20


def trace(seed: int, seconds: int) -> Iterator[dict[str, float]]:
    """Yield what a GPU of a training job shows, before rounding."""
    chance = random.Random(seed)  # noqa: S311 - noise
    skill, energy_j, heat = chance.gauss(1, 0.01), chance.uniform(1e8, 2e9), chance.uniform(50, 58)
    for second in range(seconds):
        busy = second % CHECKPOINT_EVERY_S < CHECKPOINT_EVERY_S - CHECKPOINT_S
        row = _busy(chance, skill) if busy else _idle(chance)
        heat += chance.gauss(0, 0.3) + (0.02 if busy else -0.3) * (66 - heat if busy else heat - 45) / 10
        energy_j += row["power_w"]
        yield row | {"energy_j": energy_j, "temperature_c": heat, "memory_temperature_c": heat + 9} | _steady()


def _busy(chance: random.Random, skill: float) -> dict[str, float]:
    sm = skill * chance.gauss(0.82, 0.03)
    shares = {"sm_active": 1, "sm_occupancy": 0.35, "tensor_active": 0.55, "dram_active": 0.5, "fp32_active": 0.06,
              "fp16_active": 0.03, "int_active": 0.09}  # fmt: skip
    ratios = {f"{name}_ratio": abs(sm * share * chance.gauss(1, 0.02)) for name, share in shares.items()}
    links = {f"nvlink_{way}_bytes_per_s": abs(chance.gauss(9e10, 6e9)) for way in ("rx", "tx")}
    return ratios | links | {
        "gpu_util_ratio": chance.choice((0.99, 1.0, 1.0, 1.0)),
        "gr_engine_active_ratio": min(1.0, chance.gauss(0.97, 0.01)),
        "fp64_active_ratio": 0.0,
        "pcie_tx_bytes_per_s": abs(chance.gauss(3e9, 4e8)),
        "pcie_rx_bytes_per_s": abs(chance.gauss(1.2e9, 2e8)),
        "power_w": chance.gauss(610, 14),
        "sm_clock_hz": 1755e6 + 15e6 * chance.randint(-4, 4),
        "throttle_reasons": 4 if chance.random() < 0.4 else 0,  # noqa: PLR2004 - a share of the seconds
        "memory_used_bytes": 71_000 * MIB,
    }  # fmt: skip


def _idle(chance: random.Random) -> dict[str, float]:
    row = dict.fromkeys(_busy(chance, 1.0), 0.0)
    return row | {
        "pcie_tx_bytes_per_s": abs(chance.gauss(8e9, 9e8)),
        "power_w": chance.gauss(122, 4),
        "sm_clock_hz": 1980e6,
        "memory_used_bytes": 71_000 * MIB,
    }


def _steady() -> dict[str, float]:
    counters = ("ecc_corrected", "ecc_uncorrected", "pcie_replays", "nvlink_errors")
    return dict.fromkeys(counters, 0) | {"sm_clock_max_hz": 1980e6, "memory_clock_hz": 2619e6, "power_limit_w": 700}
