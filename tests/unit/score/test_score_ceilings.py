from __future__ import annotations

from pathlib import Path

import pytest

from piolet.score.ceilings import KEYS, all_ceilings, of_model
from piolet.score.model import Bottleneck

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "score.md"


@pytest.mark.parametrize(
    ("model", "name", "nvlink"),
    [
        ("NVIDIA H100 80GB HBM3", "H100", 450e9),
        ("NVIDIA H200", "H100", 450e9),
        ("NVIDIA H100 PCIe", "H100 PCIe", 300e9),
        ("NVIDIA H100 NVL", "H100 NVL", 300e9),
        ("NVIDIA H200 NVL", "H200 NVL", 450e9),
        ("NVIDIA GH200 120GB", "GH200", 450e9),
        ("NVIDIA A100-SXM4-80GB", "A100", 300e9),
        ("AMD Instinct MI300X", "MI300X", 448e9),
    ],
)
def test_models_are_found_by_the_drivers_name(model: str, name: str, nvlink: float) -> None:
    ceilings = of_model(model)
    assert (ceilings.name, ceilings.known) == (name, True)
    assert ceilings["nvlink_bytes_per_s"] == nvlink
    assert ceilings["tensor"] == 0.93
    assert ceilings["dram"] == 0.80


@pytest.mark.parametrize("model", ["", "Tesla T4", "Something new"])
def test_an_unknown_model_gets_the_default_and_says_so(model: str) -> None:
    ceilings = of_model(model)
    assert (ceilings.name, ceilings.known) == ("default", False)


def test_every_number_has_a_source_and_a_sane_value() -> None:
    for ceilings in all_ceilings():
        assert set(ceilings.by_key) == set(KEYS)
        for key, ceiling in ceilings.by_key.items():
            assert len(ceiling.source) > 10, (ceilings.name, key)
            assert (1e9 < ceiling.value < 1e12) if key.endswith("per_s") else (0.5 <= ceiling.value <= 1.0)


def test_peaks_are_for_the_mfu_and_none_is_assumed() -> None:
    peaks = {ceilings.name: ceilings.peak_flop_per_s for ceilings in all_ceilings()}
    assert peaks.pop("default") is None
    assert all(peak and 1e14 < peak < 2e15 for peak in peaks.values())


def test_the_page_has_every_model_and_every_label() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    for ceilings in all_ceilings():
        row = next(row for row in rows if row.startswith((f"| {ceilings.name} |", f"| {ceilings.name} (")))
        shown = [cell.strip() for cell in row.strip("|").split("|")][1:]
        rates = [f"{ceilings[key] / 1e9:g} GB/s" for key in ("nvlink_bytes_per_s", "pcie_bytes_per_s")]
        peak = f"{ceilings.peak_flop_per_s / 1e12:g} TFLOP/s" if ceilings.peak_flop_per_s else "not known"
        assert shown == [f"{ceilings['tensor']}", f"{ceilings['dram']:.2f}", f"{ceilings['fp64']}", *rates, peak]
    for label in Bottleneck:
        assert any(row.startswith(f"| {label} |") for row in rows), label
