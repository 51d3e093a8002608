"""DCGM: its fields in the columns of the family `gpu`, and the texts of `dcgmi` and of dcgm-exporter.

A value that DCGM marks as blank, or that no share of time can be, is None. Sources: dcgm_fields.h (numbers, units,
names), the user guide (`dcgmi dmon`, `dcgmi discovery`), dcgm-exporter's default counters. DCGM's own numbers of GPUs
are neither NVML's nor the device files': the UUID is what tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from piolet.core.errors import ParseError
from piolet.tools.nvml import known
from piolet.tools.prometheus import Sample

Columns = dict[str, float | None]
"""Column of the family `gpu` -> value in its unit."""

UUID_FIELD = 54
"""DCGM_FI_DEV_UUID: its value is text."""

_BLANK = 140_737_488_355_328.0
_BLANKS = 4
_HIGHEST_RATIO = 1.05
_MIB = 1 << 20
_HEADER = re.compile(r"#\s*Entity\s+(.*)")
_GPU = re.compile(r"GPU\s+(\d+)\s+(.*)")


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its number, what it means here, and its names in the exporter, in `dcgmi dmon` and in the bindings."""

    number: int
    column: str
    factor: float
    symbol: str
    short: str = ""
    tag: str = ""

    def value(self, read: float | None) -> float | None:
        """Return what was read in the unit of the column, None for a blank."""
        number = known(read)
        if number is None or _BLANK <= number < _BLANK + _BLANKS:
            return None
        scaled = number * self.factor
        if self.column.endswith("_ratio"):
            return min(scaled, 1.0) if scaled <= _HIGHEST_RATIO else None
        return scaled


def _profiling(number: int, column: str, name: str, short: str, tag: str) -> Field:
    return Field(number, column, 1.0, f"DCGM_FI_PROF_{name}", short, tag)


PROFILING = (
    _profiling(1001, "gr_engine_active_ratio", "GR_ENGINE_ACTIVE", "GRACT", "gr_engine_active"),
    _profiling(1002, "sm_active_ratio", "SM_ACTIVE", "SMACT", "sm_active"),
    _profiling(1003, "sm_occupancy_ratio", "SM_OCCUPANCY", "SMOCC", "sm_occupancy"),
    _profiling(1004, "tensor_active_ratio", "PIPE_TENSOR_ACTIVE", "TENSO", "tensor_active"),
    _profiling(1005, "dram_active_ratio", "DRAM_ACTIVE", "DRAMA", "dram_active"),
    _profiling(1006, "fp64_active_ratio", "PIPE_FP64_ACTIVE", "FP64A", "fp64_active"),
    _profiling(1007, "fp32_active_ratio", "PIPE_FP32_ACTIVE", "FP32A", "fp32_active"),
    _profiling(1008, "fp16_active_ratio", "PIPE_FP16_ACTIVE", "FP16A", "fp16_active"),
    _profiling(1009, "pcie_tx_bytes_per_s", "PCIE_TX_BYTES", "PCITX", "pcie_tx_bytes"),
    _profiling(1010, "pcie_rx_bytes_per_s", "PCIE_RX_BYTES", "PCIRX", "pcie_rx_bytes"),
    _profiling(1011, "nvlink_tx_bytes_per_s", "NVLINK_TX_BYTES", "NVLTX", "nvlink_tx_bytes"),
    _profiling(1012, "nvlink_rx_bytes_per_s", "NVLINK_RX_BYTES", "NVLRX", "nvlink_rx_bytes"),
)
"""What NVML tells only with GPM. The first are the ones that every profiled GPU has."""

FIELDS = (
    Field(100, "sm_clock_hz", 1e6, "DCGM_FI_DEV_SM_CLOCK", "SMCLK", "sm_clock"),
    Field(101, "memory_clock_hz", 1e6, "DCGM_FI_DEV_MEM_CLOCK", "MMCLK", "memory_clock"),
    Field(112, "throttle_reasons", 1, "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"),
    Field(113, "sm_clock_max_hz", 1e6, "DCGM_FI_DEV_MAX_SM_CLOCK"),
    Field(140, "memory_temperature_c", 1, "DCGM_FI_DEV_MEMORY_TEMP", "MMTMP", "memory_temp"),
    Field(150, "temperature_c", 1, "DCGM_FI_DEV_GPU_TEMP", "TMPTR", "gpu_temp"),
    Field(155, "power_w", 1, "DCGM_FI_DEV_POWER_USAGE", "POWER", "power_usage"),
    Field(156, "energy_j", 1e-3, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "TOTEC", "total_energy_consumption"),
    Field(160, "power_limit_w", 1, "DCGM_FI_DEV_POWER_MGMT_LIMIT"),
    Field(202, "pcie_replays", 1, "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
    Field(203, "gpu_util_ratio", 0.01, "DCGM_FI_DEV_GPU_UTIL", "GPUTL", "gpu_utilization"),
    Field(252, "memory_used_bytes", _MIB, "DCGM_FI_DEV_FB_USED", "FBUSD", "fb_used"),
    Field(310, "ecc_corrected", 1, "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"),
    Field(311, "ecc_uncorrected", 1, "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"),
    *PROFILING,
    Field(1016, "int_active_ratio", 1, "DCGM_FI_PROF_PIPE_INT_ACTIVE", "", "integer_active"),
    Field(1076, "c2c_tx_bytes_per_s", 1, "DCGM_FI_PROF_C2C_TX_ALL_BYTES"),
    Field(1078, "c2c_rx_bytes_per_s", 1, "DCGM_FI_PROF_C2C_RX_ALL_BYTES"),
)

BY_NUMBER = {field.number: field for field in FIELDS}
BY_SYMBOL = {field.symbol: field for field in FIELDS}
BY_SHORT = {field.short: field for field in FIELDS if field.short}
BY_TAG = {field.tag: field for field in FIELDS if field.tag}


def dmon_argv(fields: Sequence[Field], interval_s: float) -> list[str]:
    """Return the command that prints `fields` of every GPU each `interval_s`, a whole number of milliseconds."""
    numbers = ",".join(str(field.number) for field in fields)
    return ["dcgmi", "dmon", "-e", numbers, "-d", str(max(100, round(interval_s * 1000)))]


def dmon_row(line: str, fields: Sequence[Field | None]) -> tuple[int, Columns] | None:
    """Return the GPU and the columns of a line of `dcgmi dmon`, whose values stand in the order of `fields`.

    None for any other line: a header, a MIG instance, a warning.
    """
    match = _GPU.fullmatch(line.strip())
    if not match:
        return None
    values = match[2].split()
    pairs = zip(fields, values, strict=False)
    return int(match[1]), {field.column: field.value(_number(word)) for field, word in pairs if field}


def parse_dmon(text: str) -> Iterator[tuple[int, Columns]]:
    """Yield (GPU, columns) of each line of `dcgmi dmon`; its header, which may come again, says what stands where.

    Raises:
        ParseError: there is no header before the first values.
    """
    fields: list[Field | None] | None = None
    for line in text.splitlines():
        if header := _HEADER.fullmatch(line.strip()):
            fields = [BY_SHORT.get(name) for name in header[1].split()]
        elif _GPU.fullmatch(line.strip()):
            if fields is None:
                raise ParseError("the values have no header", source="dcgmi dmon", text=line)
            if row := dmon_row(line, fields):
                yield row


def unknown_columns(text: str) -> set[str]:
    """Return the columns of `dcgmi dmon` that have no place in the family `gpu`."""
    headers = (_HEADER.fullmatch(line.strip()) for line in text.splitlines())
    return {name for header in headers if header for name in header[1].split()} - set(BY_SHORT)


def parse_discovery(text: str) -> dict[int, str]:
    """Return DCGM's number -> UUID from `dcgmi discovery -l`."""
    found: dict[int, str] = {}
    number: int | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0].isdigit():
            number = int(cells[0])
        uuid = re.search(r"\bGPU-[0-9a-f-]{36}", line)
        if uuid and number is not None:
            found[number] = uuid[0]
    return found


def columns_of(samples: Iterable[Sample]) -> dict[tuple[str, int, str], Columns]:
    """Return the columns of each (node, GPU, UUID) that dcgm-exporter tells of; MIG instances are left out."""
    found: dict[tuple[str, int, str], Columns] = {}
    for sample in samples:
        field = BY_SYMBOL.get(sample.name)
        gpu = sample.labels.get("gpu", "")
        if field and gpu.isdigit() and not sample.labels.get("GPU_I_ID"):
            key = sample.labels.get("Hostname", ""), int(gpu), sample.labels.get("UUID", "")
            found.setdefault(key, {})[field.column] = field.value(sample.value)
    return found


def models_of(samples: Iterable[Sample]) -> Mapping[str, str]:
    """Return UUID -> model, as far as dcgm-exporter tells."""
    return {
        each.labels["UUID"]: each.labels["modelName"] for each in samples if {"UUID", "modelName"} <= each.labels.keys()
    }


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:  # N/A
        return None
