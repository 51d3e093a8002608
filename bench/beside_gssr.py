"""What GSSR 0.4 and Piolet say of the same recording, side by side.

    python3 -m venv build/peers/gssr && build/peers/gssr/bin/pip install gssr==0.4.0
    python bench/beside_gssr.py

The recordings are made, in GSSR's own format: GPU 0 repeats the published sample of H100 training (SM active .91,
occupancy .24, tensor .279, DRAM .214, FP32 .054), after a start-up of a quarter of the time. In the second recording
the process has another GPU, which does nothing. Both tools read the very same files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import measured, peer, peer_help, report

PUBLISHED = {"gpu_utilization": 100, "sm_active": 0.91, "sm_occupancy": 0.24, "tensor_active": 0.279,
             "dram_active": 0.214, "fp64_active": 0.0, "fp32_active": 0.054, "fp16_active": 0.01}  # fmt: skip
LINKS = {"pcie_tx_bytes": 3_000_000_000, "pcie_rx_bytes": 1_200_000_000, "nvlink_tx_bytes": 90_000_000_000,
         "nvlink_rx_bytes": 90_000_000_000}  # fmt: skip
MEMORY = {"fb_total": 81_559, "fb_used": 71_000, "fb_free": 10_559, "fb_resv": 600}
SAMPLES, STARTUP, PERIOD_MS = 240, 60, 500


def main() -> None:
    """Print what each tool says."""
    venv = peer("gssr")
    if not venv:
        report(__file__, [], absent=[peer_help("gssr", "gssr==0.4.0")])
        return
    both = "recordings that both read"
    read = [beside(str(venv / "bin/gssr"), gpus) for gpus in (1, 2)]
    ours, theirs = ([sum(each[tool] for each in read)] for tool in (1, 0))
    report(__file__, [measured(both, f"of {len(read)}", ours, theirs, peer="gssr analyze")], gssr="GSSR 0.4.0")


def beside(gssr: str, gpus: int) -> tuple[bool, bool]:
    """Show what GSSR and Piolet say of a process with one GPU, or with two; tell whether each read it."""
    print(f"\n##### one process, {gpus} GPU{'s' if gpus > 1 else ''}")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "profile_out/step_0").mkdir(parents=True)
        (directory / "profile_out/step_0/proc_0.json").write_text(json.dumps(recording(gpus)))
        theirs = shown(directory, "gssr 0.4", [gssr, "analyze", "-i", str(directory / "profile_out")])
        piolet = [sys.executable, "-m", "piolet"]
        model = ["--gpu-model", "NVIDIA H100 80GB HBM3"]
        shown(directory, "piolet: import", [*piolet, "logbook", "import", str(directory / "profile_out"), *model])
        return theirs, shown(directory, "piolet: score", [*piolet, "score", "4711"])


def recording(gpus: int) -> dict[str, Any]:
    """Return the recording as GSSR 0.4 writes it."""
    start_s = time.time() - SAMPLES * PERIOD_MS / 1000
    busy = {**PUBLISHED, **LINKS, **MEMORY}
    idle = dict.fromkeys({**PUBLISHED, **LINKS}, 0) | MEMORY
    about = {"job_id": "4711", "step_id": "0", "label": "llama", "hostname": "nid001", "proc_id": 0, "n_gpus": gpus,
             "gpu_ids": list(range(gpus)), "start_time": start_s, "end_time": start_s + SAMPLES * PERIOD_MS / 1000,
             "elapsed": SAMPLES * PERIOD_MS / 1000, "sampling_time": PERIOD_MS, "n_samples": SAMPLES,
             "cmd": "python train.py"}  # fmt: skip
    first = {name: [idle[name]] * STARTUP + [value] * (SAMPLES - STARTUP) for name, value in busy.items()}
    second = {name: [value] * SAMPLES for name, value in idle.items()}
    return {"metadata": about, "data": {"0": first, "1": second} if gpus > 1 else {"0": first}}


def shown(directory: Path, title: str, argv: list[str]) -> bool:
    """Run a command, print what it says and tell whether it ended well."""
    environ = {"PIOLET_ROOT": str(directory / "root"), "PATH": "/usr/bin:/bin", "HOME": str(directory)}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environ, cwd=directory)
    print(f"\n=== {title} (exit {done.returncode})\n{done.stdout}{done.stderr}".rstrip())
    return done.returncode == 0


if __name__ == "__main__":
    main()
