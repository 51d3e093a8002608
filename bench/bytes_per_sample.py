"""What a sample costs on disk: segments of a logbook beside VictoriaMetrics and Prometheus, of the same samples.

    python bench/bytes_per_sample.py [simulated noise] [--nodes 64] [--gpus 4] [--seconds 600] [--seed 1]
    python bench/bytes_per_sample.py proc --seconds 3600
    python bench/bytes_per_sample.py logbook --directory DIR

`simulated` is a job on simulated H100s, read through NVML by the recorder's collector, each second of its time. `noise`
is a made trace whose every number has noise of the size that sensors have, the hardest to store. `proc` is this
machine's /proc and /sys from now on, and `logbook` what was recorded before. The segments are written by the
recorder's writer and merged as at the end of a job. Peers are given the same samples before a FLOAT is cut to eight
significant bits, for that would cost them more: whole numbers, and ratios with as many decimals as their column
resolves. VictoriaMetrics imports the samples and merges its parts, once as it comes and once told to keep eight bits of
precision as well; promtool makes Prometheus' blocks. The servers are then asked how many samples they hold. The floor
is the entropy of the single values of each column of each device, as if their distribution were known for nothing.
Needs Debian's packages victoria-metrics and prometheus.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

import httpx2
from common import Result, measured, report
from metric_stores import Store, free_port, running
from noisy_job import trace

from piolet import metrics
from piolet.core.errors import StorageError
from piolet.core.native import DIRECTORY, native
from piolet.lab import gpus as simulated_gpus
from piolet.logbook import writer as logbook_writer
from piolet.logbook.layout import Logbook, create
from piolet.logbook.merging import merge_node
from piolet.logbook.reader import Reader, read
from piolet.logbook.schema import FAMILIES, Column, Family
from piolet.logbook.writer import SegmentWriter
from piolet.record.clock import ticks
from piolet.record.collector import Context
from piolet.record.collectors.fs import FileSystemCollector
from piolet.record.collectors.host import HostCollector
from piolet.record.collectors.nic import NicCollector
from piolet.record.collectors.nvml import NvmlCollector
from piolet.record.collectors.processes import ProcessCollector

FLUSH_S = 5
WORKLOAD = """startup 30
loop forever
  loop 60
    compute 1.6 level=0.95
    communication 0.4
  end
  checkpoint 8
end
"""
Sizes = Mapping[str, int]
AIMS = {"VictoriaMetrics, with index": "ratio <= 0.6", "VictoriaMetrics": "ours <= 0.9"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", default=["simulated", "noise"])
    parser.add_argument("--directory", type=Path)
    for name, value in (("nodes", 64), ("gpus", 4), ("seconds", 600), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    needs_library()
    report(__file__, [result for trace in asked.traces for result in compared(trace, asked)], peers=peers())


def compared(kind: str, asked: argparse.Namespace) -> list[Result]:
    """Return the bytes a sample of one kind of trace, in a logbook and in each peer."""
    make = {"simulated": simulated, "noise": noise, "proc": proc, "logbook": again}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        text = directory / "samples"
        rounded, exact = make[kind](directory, asked)
        with read(exact) as reader:
            counts = write_text(text, reader)
        with read(rounded) as reader:
            floor_bytes, ours = floor(reader), sum(path.stat().st_size for path in reader.paths)
        theirs = {
            "VictoriaMetrics": victoria(directory / "victoria", text, counts),
            "VictoriaMetrics of 8 bits": victoria(directory / "short", text, counts, "-precisionBits=8"),
            "Prometheus": prometheus(directory / "prometheus", text, counts),
        }
    count = sum(counts.values())
    what = f"{kind}: {count:,} samples"
    beside = {"entropy of the single values": floor_bytes}
    for peer, (data, index) in theirs.items():
        beside |= {f"{peer}, with index": data + index, peer: data}
    return [
        measured(what, "bytes/sample", [ours / count], [size / count], peer=peer, aim=AIMS.get(peer, ""))
        for peer, size in beside.items()
    ]


class Both:
    """Writes the samples of a node twice: as the recorder does, and with nothing but the step of its column cut off."""

    def __init__(self, directory: Path, node: str) -> None:
        self.ours, self.exact = (SegmentWriter(book, node) for book in books(directory))
        self.directory, self.node = directory, node

    def append(self, family: str, row: Mapping[str, Any]) -> None:
        """Add a row to both."""
        self.ours.append(family, {**row, "node": self.node})
        with unittest.mock.patch.object(logbook_writer, "SIGNIFICANT_BITS", 24):
            self.exact.append(family, {**row, "node": self.node})

    def flush(self) -> None:
        """Write what waits."""
        self.ours.flush()
        self.exact.flush()

    def close(self) -> None:
        """Write the rest and merge."""
        self.flush()
        for book in books(self.directory):
            merge_node(book, self.node)


def books(directory: Path) -> tuple[Logbook, Logbook]:
    """Return where both are written."""
    return Logbook(directory / "ours/bench/1"), Logbook(directory / "exact/bench/1")


def created(directory: Path) -> tuple[Logbook, Logbook]:
    """Make both logbooks."""
    return create(directory / "ours", "bench", "1"), create(directory / "exact", "bench", "1")


def needs_library() -> None:
    """Begin anew with the simulator's library, which the loader looks for only once."""
    native("libnvidia-ml.so.1")
    if os.environ.get("LD_LIBRARY_PATH") != str(DIRECTORY):
        environ = os.environ | {"LD_LIBRARY_PATH": str(DIRECTORY)}
        os.execve(sys.executable, [sys.executable, *sys.argv], environ)  # noqa: S606 - this program again


def simulated(directory: Path, asked: argparse.Namespace) -> tuple[Logbook, Logbook]:
    """Record a job on simulated GPUs, each node in a process of its own, at the times that the simulator is told."""
    made = created(directory)
    start_ns = start_s() * 10**9
    script = directory / "workload"
    script.write_text(WORKLOAD)
    for number in range(asked.nodes):
        node = f"node{number:03}"
        state = directory / "gpus" / node
        simulated_gpus.write_inventory(state, node=node, count=asked.gpus, boot_ns=start_ns - 3600 * 10**9)
        for gpu in range(asked.gpus):
            simulated_gpus.arm_script(state, gpu, script.read_text(), time_ns=start_ns + 10**9 * (gpu % 2))
        if child := os.fork():
            if os.waitpid(child, 0)[1]:
                sys.exit(f"{node} could not be recorded")
            continue
        _simulate(directory, node, state, start_ns, asked.seconds)
        os._exit(0)
    return made


def _simulate(directory: Path, node: str, state: Path, start_ns: int, seconds: int) -> None:
    os.environ |= {"PIOLET_GPUSIM": str(state), "PIOLET_GPUSIM_NOW_NS": str(start_ns)}
    collector = NvmlCollector(Context(dict(os.environ), StorageError("none")))
    writer = Both(directory, node)
    for second in range(seconds):
        now_ns = start_ns + second * 10**9
        os.environ["PIOLET_GPUSIM_NOW_NS"] = str(now_ns)
        for family, row in collector.collect(now_ns):
            writer.append(family, row)
        if second % FLUSH_S == FLUSH_S - 1:
            writer.flush()
    writer.close()


def start_s() -> int:
    """Return a start within one block of Prometheus, which are two hours long."""
    return int(time.time()) // 7200 * 7200 - 6600


def noise(directory: Path, asked: argparse.Namespace) -> tuple[Logbook, Logbook]:
    """Write what is made to be hard: noise of the size that the sensors have, in every number."""
    made = created(directory)
    for number in range(asked.nodes):
        node = f"node{number:03}"
        traces = [list(trace(asked.seed * 1_000_000 + number * 100 + gpu, asked.seconds)) for gpu in range(asked.gpus)]
        writer = Both(directory, node)
        for second in range(asked.seconds):
            for gpu, rows in enumerate(traces):
                identity = {"time_ns": (start_s() + second) * 10**9, "gpu": gpu, "uuid": uuid(node, gpu)}
                writer.append("gpu", identity | rows[second])
            if second % FLUSH_S == FLUSH_S - 1:
                writer.flush()
        writer.close()
    return made


def proc(directory: Path, asked: argparse.Namespace) -> tuple[Logbook, Logbook]:
    """Record this machine's host, adapters, file systems and the processes below this one."""
    made, writer = created(directory), Both(directory, "node")
    os.environ[metrics.VARIABLE] = "bench/1"
    context = Context({}, StorageError("none"), metrics="bench/1")
    collectors = [kind(context) for kind in (HostCollector, NicCollector, FileSystemCollector, ProcessCollector)]
    for second, tick_ns in zip(range(asked.seconds), ticks(10**9, _slept, first_ns=10**9), strict=False):
        for collector in collectors:
            if second % round(getattr(collector, "least_interval_s", 1)) == 0:
                for family, row in collector.collect(tick_ns):
                    writer.append(family, row)
        if second % FLUSH_S == FLUSH_S - 1:
            writer.flush()
    writer.close()
    return made


def _slept(seconds: float) -> bool:
    time.sleep(max(0.0, seconds))
    return False


def again(directory: Path, asked: argparse.Namespace) -> tuple[Logbook, Logbook]:
    """Write what was recorded in the logbook that was named once more."""
    made, writers = created(directory), {}
    with read(Logbook(asked.directory)) as reader:
        for family in FAMILIES.values():
            found = reader.database.execute(f'SELECT * FROM "{family.name}" ORDER BY time_ns')  # noqa: S608 - ours
            names = [name for name, *_ in found.description or ()]
            for number, values in enumerate(found.fetchall()):
                row = dict(zip(names, values, strict=True))
                node = row.pop("node")
                if node not in writers:
                    writers[node] = Both(directory, node)
                writers[node].append(family.name, row)
                if number % 100 == 0:
                    writers[node].flush()
    for writer in writers.values():
        writer.close()
    return made


def floor(reader: Reader) -> float:
    """Return the bytes of the entropy of all numbers, each column of each device by itself."""
    return sum(_entropy_bytes(reader, family, column) for family in FAMILIES.values() for column in family.columns
               if _is_number(family, column))  # fmt: skip


def _entropy_bytes(reader: Reader, family: Family, column: Column) -> float:
    query = f"""
        WITH counted AS (SELECT {", ".join(family.key[1:])}, {column.name}, count(*) AS n FROM "{family.name}"
                         WHERE {column.name} IS NOT NULL GROUP BY ALL),
        together AS (SELECT *, sum(n) OVER (PARTITION BY {", ".join(family.key[1:])}) AS all_of FROM counted)
        SELECT coalesce(-sum(n * log2(n / all_of)) / 8, 0) FROM together
    """  # noqa: S608 - our own names
    return float(reader.database.execute(query).fetchall()[0][0])


def _is_number(family: Family, column: Column) -> bool:
    return column.kind not in {"VARCHAR", "BOOLEAN"} and column.name not in {"time_ns", *family.key}


def write_text(path: Path, reader: Reader) -> dict[str, int]:
    """Write every number of a logbook as OpenMetrics text, rounded as it is stored; return how many each metric has."""
    counts: dict[str, int] = {}
    with path.open("w") as file:
        for family in FAMILIES.values():
            for column in family.columns:
                metric = f"{family.name}_{column.name}"
                if not _is_number(family, column):
                    continue
                found = 0
                for found, line in enumerate(_lines(reader, family, column, metric), start=1):
                    if found == 1:
                        file.write(f"# TYPE {metric} gauge\n")
                    file.write(line)
                if found:
                    counts[metric] = found
        file.write("# EOF\n")
    return counts


def _lines(reader: Reader, family: Family, column: Column, metric: str) -> Iterator[str]:
    labels = [name for name in (*family.key[1:], "uuid", "rank") if name in family.names]
    labels = list(dict.fromkeys(labels))
    keys = ", ".join(labels)
    query = f'SELECT {keys}, time_ns, {column.name} FROM "{family.name}" WHERE {column.name} IS NOT NULL ORDER BY ALL'  # noqa: S608
    result = reader.database.cursor().execute(query)
    while rows := result.fetchmany(20_000):
        for *names, time_ns, value in rows:
            shown = ",".join(f'{label}="{name}"' for label, name in zip(labels, names, strict=True))
            yield f"{metric}{{{shown}}} {printed(column, value):.12g} {time_ns / 1e9:.3f}\n"


def printed(column: Column, value: float) -> float:
    """Return a value with as many decimals as its column resolves: no exporter prints a 1024th."""
    step = column.resolution
    return round(value, round(-math.log10(step))) if 0 < step < 1 else value


def victoria(directory: Path, text: Path, counts: Sizes, *options: str) -> tuple[int, int]:
    """Import the samples, merge, and return the bytes of samples and index."""
    with running("victoria-metrics", f"127.0.0.1:{free_port()}", directory, *options) as store:
        with text.open() as file:
            while batch := file.readlines(1 << 24):
                lines = (_in_milliseconds(line) for line in batch if line[0] != "#")
                httpx2.post(f"{store.url}/api/v1/import/prometheus", content="".join(lines), timeout=120)
        for action in ("force_flush", "force_merge"):
            httpx2.get(f"{store.url}/internal/{action}", timeout=300).raise_for_status()
        held(store, counts)
        settle(directory / "data")
    return size(directory / "data/data"), size(directory / "data/indexdb")


def _in_milliseconds(line: str) -> str:
    head, _, time_s = line.rpartition(" ")
    return f"{head} {time_s.strip().replace('.', '')}\n"


def prometheus(directory: Path, text: Path, counts: Sizes) -> tuple[int, int]:
    """Make blocks of the samples, have Prometheus read them, and return the bytes of samples and index."""
    directory.mkdir()
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(directory / "data")]
    subprocess.run(made, check=True, capture_output=True)
    blocks = [path.parent for path in directory.glob("data/*/meta.json")]
    data = sum(size(block / "chunks") for block in blocks)
    with running("prometheus", f"127.0.0.1:{free_port()}", directory) as store:
        held(store, counts)
    return data, sum(map(size, blocks)) - data


def held(store: Store, counts: Sizes) -> None:
    """Make sure that a store has every sample; exit if not."""
    for name, count in counts.items():
        found = int(store.query(f"sum(count_over_time({name}[5h]))")[0]["value"][1])
        if found != count:
            sys.exit(f"{store.name} holds {found} samples of {name}, and {count} were given")


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


def peers() -> str:
    """Return the versions of the peers' Debian packages."""
    argv = ["dpkg-query", "-W", "-f", "${Package} ${Version} ", "victoria-metrics", "prometheus"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
