"""The saturation score beside GSSR 0.4 on the same made recordings, and beside the truth that they were made from.

    python3 -m venv build/peers/gssr && build/peers/gssr/bin/pip install gssr==0.4.0
    .venv/bin/python bench/score_beside_gssr.py

Every case is written once in GSSR's own format, one file a process, and given to both: `gssr analyze` and, imported,
`piolet score`. The truth is the mean over all allocated GPU-seconds of max(compute, memory) of what was written. GSSR
gives no score (0.4 has none in its code); its own summary prints mean and median of each counter over all samples and
the sum of the pipes, and that is shown.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common import Result, measured, peer, peer_help, report

SECONDS = 400
MODEL = "NVIDIA H100 80GB HBM3"
START = 1_767_000_000
TENSOR, DRAM = 0.93, 0.80
PIPES = ("tensor_active", "fp64_active", "fp32_active", "fp16_active")
LINKS = ("pcie_tx_bytes", "pcie_rx_bytes", "nvlink_tx_bytes", "nvlink_rx_bytes")
COUNTERS = ("gpu_utilization", "sm_active", "sm_occupancy", "dram_active", *PIPES, *LINKS)

Activity = Mapping[str, float]
H100 = {
    "gpu_utilization": 100,
    "sm_active": 0.91,
    "sm_occupancy": 0.24,
    "tensor_active": 0.279,
    "dram_active": 0.214,
    "fp32_active": 0.054,
}
LOADING = {"gpu_utilization": 10, "sm_active": 0.02, "dram_active": 0.02, "pcie_rx_bytes": 6e9}
HANG = {"gpu_utilization": 100, "sm_active": 0.18, "dram_active": 0.002}
STREAM = {"gpu_utilization": 100, "sm_active": 0.88, "tensor_active": 0.02, "dram_active": 0.72, "fp32_active": 0.06}


@dataclass(frozen=True, slots=True)
class Case:
    """What the GPUs do, after `loading_s` of start-up; the first `unused` never anything.

    `one_process` puts all GPUs into one file, as a program with one rank a node does.
    """

    name: str
    activity: Activity
    loading_s: int = 0
    unused: int = 0
    one_process: bool = False

    def at(self, gpu: int, second: int) -> Activity:
        """Return what a GPU does in a second."""
        if gpu < self.unused:
            return {}
        return LOADING if second < self.loading_s else self.activity


CASES = (
    Case("published H100 training sample", H100),
    Case("the same after 130 s of start-up", H100, loading_s=130),
    Case("the same, 1 GPU of 4 never used", H100, unused=1),
    Case("the same, one process with 4 GPUs", H100, unused=1, one_process=True),
    Case("hang: a kernel that waits", HANG),
    Case("memory-bound", STREAM),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one tool says of a case."""

    gpus: int
    value: float
    said: str


def main() -> None:
    """Ask both and print."""
    venv = peer("gssr")
    results = [result for case in CASES for result in _compared(case, venv)]
    absent = [] if venv else [peer_help("gssr", "gssr==0.4.0")]
    report(__file__, results, absent=absent, gssr=_version(venv) if venv else "absent")


def _compared(case: Case, venv: Path | None) -> list[Result]:
    """Ask both, print what they say, and return how far the score is from the truth, beside GSSR's sum of the pipes."""
    with tempfile.TemporaryDirectory() as name:
        recording = _write(Path(name) / "recording", case)
        ours = _piolet(Path(name) / "books", recording)
        theirs = _gssr(venv / "bin/gssr", recording) if venv else None
    print(
        f"{case.name:34} piolet: {ours.gpus} GPUs, {ours.said}"
        + (f"; gssr: {theirs.gpus} GPUs, {theirs.said}" if theirs else "")
    )
    found = [measured(f"{case.name}: score", "", [ours.value], [_truth(case)], peer="truth")]
    return found + (
        [measured(f"{case.name}: score", "", [ours.value], [theirs.value], peer="gssr: sum of pipes")] if theirs else []
    )


def _version(venv: Path) -> str:
    return _run(
        [str(venv / "bin/python"), "-c", "import importlib.metadata as m; print('GSSR', m.version('gssr'))"]
    ).strip()


def _truth(case: Case) -> float:
    values = [_saturation(case.at(gpu, second)) for gpu in range(4) for second in range(SECONDS)]
    return sum(values) / len(values)


def _saturation(activity: Activity) -> float:
    pipes = [activity.get(pipe, 0.0) for pipe in PIPES[1:]]
    return max(activity.get("tensor_active", 0.0) / TENSOR, activity.get("dram_active", 0.0) / DRAM, *pipes)


def _write(directory: Path, case: Case) -> Path:
    step = directory / "step_0"
    step.mkdir(parents=True)
    ranks = [range(4)] if case.one_process else [range(gpu, gpu + 1) for gpu in range(4)]
    for rank, gpus in enumerate(ranks):
        about = {"job_id": 1, "step_id": 0, "label": "case", "hostname": "node1", "proc_id": rank, "n_gpus": len(gpus),
                 "gpu_ids": list(gpus), "start_time": START, "end_time": START + SECONDS, "elapsed": SECONDS,
                 "sampling_time": 1000, "n_samples": SECONDS, "cmd": "train.py"}  # fmt: skip
        data = {str(gpu): {name: [case.at(gpu, second).get(name, 0) for second in range(SECONDS)]
                           for name in COUNTERS} for gpu in gpus}  # fmt: skip
        (step / f"proc_{rank}.json").write_text(json.dumps({"metadata": about, "data": data}))
    return directory


def _piolet(root: Path, recording: Path) -> Answer:
    program, environment = str(Path(sys.executable).with_name("piolet")), {"PIOLET_ROOT": str(root)}
    files = [str(path) for path in sorted(recording.rglob("*.json"))]
    _run([program, "logbook", "import", "--cluster", "bench", "--gpu-model", MODEL, *files], environment)
    score = json.loads(_run([program, "score", "1", "--format", "json"], environment))
    steady = f", {score['steady']:.3f} steady" if score["startup_s"] else ""
    return Answer(len(score["gpus"]), score["score"], score["label"]["bottleneck"] + steady)


def _gssr(program: Path, recording: Path) -> Answer:
    """Read GSSR's tables: the mean of a counter over all samples that it kept, and its lines per GPU."""
    text = _run([str(program), "analyze", "-i", str(recording)], {"COLUMNS": "200", "MPLBACKEND": "agg"})
    means = dict(re.findall(r"\| (\w+) +\| +[^|]+\| +([^|]+?) +\|", text))
    lines = [line.split("|")[1:-1] for line in text.partition("GPU averages")[2].splitlines() if line.startswith("|")]
    sums = [float(line[-1].strip().rstrip("%")) / 100 for line in lines if line[0].strip().isdigit()]
    pipes = sum(sums) / len(sums)
    return Answer(len(sums), pipes, f"pipes {pipes:.3f}, SM {means['sm_active']}, DRAM {means['dram_active']}")


def _run(argv: list[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        argv, env={"PATH": "/usr/bin:/bin"} | dict(environment or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
