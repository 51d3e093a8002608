from __future__ import annotations

import made_logbooks
import pytest

from piolet.score import score_job, words
from piolet.score.measure import Window
from piolet.score.resources import Resources, resources

Rows = list[tuple[str, dict[str, object]]]


def sampled(family: str, seconds: int = 10, nodes: tuple[str, ...] = ("node1", "node2"), **values: object) -> Rows:
    """A row a second and node; a value that is callable is given the second."""
    return [
        (
            family,
            {
                "time_ns": made_logbooks.START_NS + second * made_logbooks.SECOND_NS,
                "node": node,
                **{name: value(second) if callable(value) else value for name, value in values.items()},
            },
        )
        for node in nodes
        for second in range(seconds)
    ]


def used(rows: Rows) -> Resources:
    record = made_logbooks.job(("node1", "node2"), seconds=10)
    samples = made_logbooks.constant(record, 10, tensor_active=0.5, dram_active=0.1, power_w=500.0)
    limited = [(family, row | {"power_limit_w": 700.0}) for family, row in samples]
    window = Window(made_logbooks.START_NS, made_logbooks.START_NS + 10 * made_logbooks.SECOND_NS, 1.0)
    with made_logbooks.in_memory([*limited, *rows]) as reader:
        return resources(reader, window, score_job(reader, record))


def test_a_file_system_is_the_sum_of_its_nodes() -> None:
    rows = sampled(
        "fs",
        fs="/scratch",
        kind="lustre",
        read_bytes_per_s=lambda second: 4e9 if second == 5 else 1e9,
        write_bytes_per_s=0.0,
        read_latency_s=0.004,
        read_ops_per_s=100.0,
    )
    (found,) = used([*rows, *sampled("fs", fs="sda", kind="disk", read_bytes_per_s=10.0)]).files
    assert (found.name, found.kind, found.nodes) == ("/scratch", "lustre", 2)
    assert found.read == pytest.approx(2.6e9)
    assert found.read_peak == pytest.approx(8e9)
    assert found.read_latency_s == pytest.approx(0.004)
    assert found.write_latency_s is None
    assert words.files_line(found) == (
        "read 2.6 GB/s, at most 8.0 GB/s; written 0 B/s, at most 0 B/s; a read takes 4 ms"
    )


def test_the_network_is_told_by_adapter_with_what_went_wrong() -> None:
    rows = sampled(
        "nic",
        nic="hsn0",
        kind="cxi",
        rx_bytes_per_s=10e9,
        tx_bytes_per_s=lambda second: 5e9 + second * 1e9,
        speed_bytes_per_s=25e9,
        retries=lambda second: 100 + second,
        rx_errors=7,
    )
    (found,) = used(rows).network
    assert (found.kind, found.adapters, found.nodes) == ("cxi", 2, 2)
    assert found.highest == pytest.approx(14e9)
    assert found.busiest == pytest.approx(0.56)
    assert found.troubles == {"sent again": 18}
    assert words.network_line(found).endswith("the highest of one 14 GB/s, 56\u00a0% of its speed; 18 sent again")


def test_energy_of_nodes_survives_a_wrap_of_the_counter() -> None:
    rows = sampled("energy", domain="node", energy_j=lambda second: (second * 3000) % 20_000)
    found = used(rows).energy
    assert found.nodes_measured == 2
    assert found.nodes_j == pytest.approx(2 * (18_000 + 6000))
    assert found.limit_ratio == pytest.approx(500 / 700)
    assert dict(words.energy_facts(found))["Power of a GPU"] == "500 W on average, 71\u00a0% of the power limit"


def test_what_was_not_recorded_is_not_told() -> None:
    found = used([])
    assert found.files == found.network == ()
    assert found.energy.gpus_j is None
    assert found.energy.nodes_j is None
