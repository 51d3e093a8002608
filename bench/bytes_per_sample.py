"""What a sample costs on disk: segments of a logbook beside VictoriaMetrics and Prometheus, of the same samples.

    python bench/bytes_per_sample.py [--nodes 64] [--gpus 4] [--seconds 600] [--seed 1] [--json FILE]

A made trace of a training job: every column of the family `gpu` that NVML and GPM fill, once a second, with noise of
the size that the sensors have, rounded as the recorder rounds. The segments are written by the recorder's writer, a
flush every five seconds, and merged as at the end of a job. VictoriaMetrics imports the samples and merges its parts;
promtool makes Prometheus' blocks. Both are then asked how many samples they hold. Needs Debian's packages
victoria-metrics and prometheus.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

import httpx2
from metric_stores import Store, free_port, running

from piolet import __version__
from piolet.logbook.layout import Logbook, create
from piolet.logbook.merging import merge_node
from piolet.logbook.schema import FAMILIES
from piolet.logbook.writer import SegmentWriter, rounded

COLUMNS = {column.name: column for column in FAMILIES["gpu"].columns}
IDENTITY = {"time_ns", "node", "gpu", "uuid", "source"}
FLUSH_S = 5
CHECKPOINT_EVERY_S, CHECKPOINT_S = 120, 8
MIB = 1 << 20
Series = dict[str, list[float]]
"""Column -> a value a second."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    for name, value in (("nodes", 64), ("gpus", 4), ("seconds", 600), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    start_s = int(time.time()) // 7200 * 7200 - 6600  # within one block of Prometheus, which are two hours long
    devices = {
        (f"node{node:03}", gpu): trace(asked.seed * 1_000_000 + node * 100 + gpu, asked.seconds)
        for node in range(asked.nodes)
        for gpu in range(asked.gpus)
    }
    count = sum(len(values) for series in devices.values() for values in series.values())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        text = directory / "samples"
        names = write_text(text, devices, start_s)
        bytes_of = {
            "piolet": {"data": segments(directory, devices, start_s)},
            "victoria-metrics": victoria(directory / "victoria", text, names, count),
            "prometheus": prometheus(directory / "prometheus", text, names, count),
        }
    report(asked, count, bytes_of)


def trace(seed: int, seconds: int) -> Series:
    """Return what a GPU of a training job shows, before rounding."""
    chance = random.Random(seed)  # noqa: S311 - noise
    skill, energy_j, heat = chance.gauss(1, 0.01), chance.uniform(1e8, 2e9), chance.uniform(50, 58)
    rows: list[dict[str, float]] = []
    for second in range(seconds):
        busy = second % CHECKPOINT_EVERY_S < CHECKPOINT_EVERY_S - CHECKPOINT_S
        row = _busy(chance, skill) if busy else _idle(chance)
        heat += chance.gauss(0, 0.3) + (0.02 if busy else -0.3) * (66 - heat if busy else heat - 45) / 10
        energy_j += row["power_w"]
        rows.append(row | {"energy_j": energy_j, "temperature_c": heat, "memory_temperature_c": heat + 9} | _steady())
    return {name: [row[name] for row in rows] for name in rows[0]}


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


def segments(directory: Path, devices: Mapping[tuple[str, int], Series], start_s: int) -> int:
    """Write and merge the logbook; return the bytes of its segments."""
    logbook = create(directory / "books", "bench", "1")
    for node in sorted({node for node, _ in devices}):
        _record(logbook, node, {gpu: series for (name, gpu), series in devices.items() if name == node}, start_s)
        merge_node(logbook, node)
    return size(logbook.family("gpu"))


def _record(logbook: Logbook, node: str, gpus: Mapping[int, Series], start_s: int) -> None:
    writer = SegmentWriter(logbook, node)
    for second in range(len(next(iter(gpus[0].values())))):
        for gpu, series in gpus.items():
            row = {name: values[second] for name, values in series.items()}
            identity = {"time_ns": (start_s + second) * 10**9, "node": node, "gpu": gpu, "uuid": uuid(node, gpu)}
            writer.append("gpu", identity | row)
        if second % FLUSH_S == FLUSH_S - 1:
            writer.flush()
    writer.flush()


def write_text(path: Path, devices: Mapping[tuple[str, int], Series], start_s: int) -> list[str]:
    """Write the samples as OpenMetrics text, rounded as the recorder rounds; return the names of the metrics."""
    names = sorted(next(iter(devices.values())))
    with path.open("w") as file:
        for name in names:
            file.write(f"# TYPE gpu_{name} gauge\n")
            file.writelines(_lines(name, devices, start_s))
        file.write("# EOF\n")
    return [f"gpu_{name}" for name in names]


def _lines(name: str, devices: Mapping[tuple[str, int], Series], start_s: int) -> Iterator[str]:
    for (node, gpu), series in devices.items():
        labels = f'gpu_{name}{{node="{node}",gpu="{gpu}",uuid="{uuid(node, gpu)}"}}'
        for second, value in enumerate(series[name]):
            yield f"{labels} {rounded(COLUMNS[name], value):.12g} {start_s + second}\n"


def victoria(directory: Path, text: Path, names: list[str], count: int) -> dict[str, int]:
    """Import the samples, merge, and return the bytes of samples and index."""
    with running("victoria-metrics", f"127.0.0.1:{free_port()}", directory) as store:
        with text.open() as file:
            while batch := file.readlines(1 << 24):
                lines = (line[:-1] + "000\n" for line in batch if line[0] != "#")  # milliseconds
                httpx2.post(f"{store.url}/api/v1/import/prometheus", content="".join(lines), timeout=120)
        for action in ("force_flush", "force_merge"):
            httpx2.get(f"{store.url}/internal/{action}", timeout=300).raise_for_status()
        held(store, names, count)
        settle(directory / "data")
    return {"data": size(directory / "data/data"), "index": size(directory / "data/indexdb")}


def prometheus(directory: Path, text: Path, names: list[str], count: int) -> dict[str, int]:
    """Make blocks of the samples, have Prometheus read them, and return the bytes of samples and index."""
    directory.mkdir()
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(directory / "data")]
    subprocess.run(made, check=True, capture_output=True)
    blocks = [path.parent for path in directory.glob("data/*/meta.json")]
    found = {"data": sum(size(block / "chunks") for block in blocks)}
    found["index"] = sum(map(size, blocks)) - found["data"]
    with running("prometheus", f"127.0.0.1:{free_port()}", directory) as store:
        held(store, names, count)
    return found


def held(store: Store, names: list[str], count: int) -> None:
    """Make sure that a store has every sample; exit if not."""
    found = sum(int(store.query(f"sum(count_over_time({name}[5h]))")[0]["value"][1]) for name in names)
    if found != count:
        sys.exit(f"{store.name} holds {found} samples of {count}")


def settle(directory: Path) -> None:
    """Wait until a store no longer changes its files: three seconds of the same size."""
    sizes: list[int] = []
    while len(sizes) < 4 or len(set(sizes[-4:])) > 1:  # noqa: PLR2004 - four readings, a second apart
        sizes.append(size(directory / "data"))
        time.sleep(1)


def size(directory: Path) -> int:
    """Return the bytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def uuid(node: str, gpu: int) -> str:
    """Return an identity of the form and length that NVML gives."""
    chance = random.Random(f"{node}/{gpu}")  # noqa: S311 - a name
    return "GPU-" + "-".join(f"{chance.getrandbits(4 * digits):0{digits}x}" for digits in (8, 4, 4, 4, 12))


def report(asked: argparse.Namespace, count: int, bytes_of: Mapping[str, Mapping[str, int]]) -> None:
    """Print the table, and write the figures where they were asked for."""
    print(f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}")
    print(f"piolet {__version__}, {peers()}")
    print(f"{asked.nodes} nodes x {asked.gpus} GPUs x {asked.seconds} s, seed {asked.seed}: {count} samples")
    print(f"{'':18} {'B/sample':>9} {'+ index':>9} {'against piolet':>15} {'with index':>11}")
    ours = bytes_of["piolet"]["data"]
    for name, sizes in bytes_of.items():
        data, both = sizes["data"], sum(sizes.values())
        print(f"{name:18} {data / count:9.3f} {both / count:9.3f} {data / ours:14.2f}x {both / ours:10.2f}x")
    if asked.json:
        asked.json.write_text(json.dumps({"samples": count, "bytes": bytes_of}, indent=2) + "\n")


def peers() -> str:
    """Return the versions of the peers' Debian packages."""
    argv = ["dpkg-query", "-W", "-f", "${Package} ${Version} ", "victoria-metrics", "prometheus"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
