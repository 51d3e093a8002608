"""Which faults vetting finds, beside vetnode 0.1.5: each fault that a lab can make, on one node, judged by both.

.venv/bin/python bench/vet_faults.py

vetnode is installed from PyPI into an environment that is thrown away. It gets all of its checks that run without CUDA.
It reads nvidia-smi, which a lab has not: a stand-in prints what the simulated NVML says, in the form that it parses.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common import measured, report

from piolet.lab import Lab, Spec, status, up
from piolet.lab.gpus import clear, inject, parse_faults

PEER = "vetnode==0.1.5"
NEEDED = "tabulate"  # vetnode imports it and does not say so
HEALTHY = "none: a healthy node"
LIMIT_S = 60
READY, REFUSED, UNKNOWN = "ready", "refused", "unknown"

GPU_FAULTS: tuple[dict[str, object], ...] = (
    {"xid": 79}, {"xid": 119}, {"throttle": "thermal"}, {"throttle": "power"}, {"throttle": "hw-slowdown"},
    {"ecc_uncorrected": 3}, {"remap": "pending"}, {"remap": "failed"}, {"nvlink_down": 4}, {"nvlink_errors": 5},
    {"pcie_width": 4}, {"slow": 0.5}, {"leftover_memory": "20GiB"}, {"leftover_memory": "2GiB"}, {"temp": 95},
    {"hang": True},
)  # fmt: skip
HARMLESS: tuple[dict[str, object], ...] = ({"xid": 31}, {"ecc_corrected": 100})

OURS = """include: [ml-training]
evals:
- {{type: gpu_temperature, below_celsius: 90}}
- {{type: disk, paths: [/mnt]}}
- {{type: environment, expected: {{SITE: alps}}}}
- {{type: internet, host: 127.0.0.1, port: {port}}}
"""
THEIRS = """name: bench
scheduler: standalone
evals:
- {{name: gpu, type: {gpu}, max_temp: 90, max_used_memory: 0.2}}
- {{name: variables, type: vetnode.evaluations.env_var_eval.EnvVarEval, expected: {{SITE: alps}}}}
- name: network
  type: vetnode.evaluations.internet_access.InternetAccessEval
  host: 127.0.0.1
  port: {port}
  timeout: 3
"""
NVIDIA_SMI = """#!{python}
import sys, pynvml
try:
    pynvml.nvmlInit()
except pynvml.NVMLError as error:
    sys.exit(print(error) or 9)
for index in range(pynvml.nvmlDeviceGetCount()):
    try:
        gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory, bus = pynvml.nvmlDeviceGetMemoryInfo(gpu), pynvml.nvmlDeviceGetPciInfo(gpu).busId
        temperature = pynvml.nvmlDeviceGetTemperature(gpu, 0)
    except pynvml.NVMLError as error:
        sys.exit(print(error) or 15)
    print(f"GPU {{bus}}\\n    Product Name : GPU\\n    Module ID : {{index}}\\n    FB Memory Usage")
    print(f"        Total : {{memory.total >> 20}} MiB\\n        Used : {{memory.used >> 20}} MiB")
    print(f"        GPU Current Temp : {{temperature}} C")
"""


@dataclass(frozen=True)
class Bench:
    """A lab of one node, and a directory with vetnode, the stand-in and both protocols."""

    lab: Lab
    directory: Path
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"piolet": [], "vetnode": []})

    def environment(self, **changed: str) -> dict[str, str]:
        """Return the environment of both tools: vetnode's nvidia-smi comes first."""
        inherited = os.environ | self.lab.environment() | {"SITE": "alps"} | changed
        return inherited | {"PATH": f"{self.directory}:{inherited['PATH']}"}

    def ours(self, protocol: str, **changed: str) -> tuple[str, str]:
        """Return our verdict and reason."""
        argv = [sys.executable, "-m", "piolet", "vet", "run", "--protocol", self.written("ours.yaml", protocol)]
        argv = ["salloc", "--quiet", "-N1", "--gpus-per-node=4", *argv, "--format", "json"]
        done = self._run("piolet", argv, changed)
        if not done.stdout:
            return UNKNOWN, done.stderr.strip().splitlines()[0].removeprefix("piolet: ")
        found = json.loads(done.stdout)
        if found["ready"]:
            return READY, ""
        return (UNKNOWN if found["unknown"] else REFUSED), found["refused"][0]["reason"]

    def theirs(self, protocol: str, **changed: str) -> str:
        """Return vetnode's verdict, which is its exit status."""
        argv = [self.directory / "vetnode/bin/vetnode", "diagnose", self.written("theirs.yaml", protocol)]
        try:
            argv = ["srun", "--quiet", "-N1", "--gpus-per-node=4", *argv, "--skip-install"]
            done = self._run("vetnode", argv, changed)
        except subprocess.TimeoutExpired:
            return f"no answer within {LIMIT_S} s"
        return READY if done.returncode == 0 else REFUSED

    def written(self, name: str, text: str) -> str:
        """Write a protocol and return its path."""
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def _run(self, tool: str, argv: list[str | Path], changed: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment, started_s = self.environment(**changed), time.monotonic()
        try:
            return subprocess.run(argv, capture_output=True, check=False, env=environment, text=True, timeout=LIMIT_S)
        finally:
            self.seconds[tool].append(time.monotonic() - started_s)


@contextmanager
def gpu_fault(lab: Lab, values: dict[str, object]) -> Iterator[None]:
    """Inject a fault into GPU 1 of the node, for a while."""
    directory = lab.node_directory("node1") / "gpu"
    for fault in parse_faults(values):
        inject(directory, 1, fault)
    try:
        yield
    finally:
        clear(directory, 1)


@contextmanager
def no_driver(lab: Lab) -> Iterator[None]:
    """Take the driver's library away."""
    library = lab.node_directory("node1") / "lib" / "libnvidia-ml.so.1"
    away = library.with_suffix(".away")
    library.rename(away)
    try:
        yield
    finally:
        away.rename(library)


@contextmanager
def machine_check(lab: Lab) -> Iterator[None]:
    """Log an uncorrected machine check in the node's kernel log."""
    log = lab.node_directory("node1") / "kmsg"
    before = log.read_bytes()
    error = "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: be00000000800400"
    record = f"3,9999,{time.monotonic_ns() // 1000},-;{error}"
    log.write_text(f"{before.decode()}{record}\n", encoding="utf-8")
    try:
        yield
    finally:
        log.write_bytes(before)


@contextmanager
def mounted(lab: Lab, options: str, script: str = "true") -> Iterator[None]:
    """Mount a file system of 1 MiB at /mnt, in the node only."""
    inside = ("nsenter", "--mount", f"--target={status(lab).daemons['slurmd@node1']}", "sh", "-c")
    subprocess.run([*inside, f"mount -t tmpfs -o {options} tmpfs /mnt && {script}"], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "umount /mnt"], check=True)


def rows(bench: Bench, port: int) -> Iterator[tuple[str, str, tuple[str, str], str]]:
    """Yield each fault, the verdict that is right, ours and vetnode's."""
    ours = OURS.format(port=port)
    theirs = THEIRS.format(port=port, gpu="vetnode.evaluations.gpu_eval.GPUEval")

    def both(name: str, right: str = REFUSED, **changed: str) -> tuple[str, str, tuple[str, str], str]:
        return name, right, bench.ours(ours, **changed), bench.theirs(theirs, **changed)

    yield both(HEALTHY, READY)
    for right, faults in ((READY, HARMLESS), (REFUSED, GPU_FAULTS)):
        for values in faults:
            with gpu_fault(bench.lab, values):
                [(name, value)] = values.items()
                yield both(f"--{name.replace('_', '-')} {'' if value is True else value}".strip(), right)
    with no_driver(bench.lab):
        yield both("the driver's library is gone")
    with mounted(bench.lab, "size=1m", "head -c 950000 /dev/zero > /mnt/filler"):
        yield both("a file system is full")
    with mounted(bench.lab, "size=1m,ro"):
        yield both("a file system is read-only")
    yield both("a variable has another value", SITE="elsewhere")
    with machine_check(bench.lab):
        machine = "evals:\n- {type: hardware_errors}\n"
        yield "a machine check is logged", REFUSED, bench.ours(machine), bench.theirs(theirs)
    closed = _closed_port()
    yield (
        "a service does not answer",
        REFUSED,
        bench.ours(OURS.format(port=closed)),
        bench.theirs(THEIRS.format(port=closed, gpu="vetnode.evaluations.gpu_eval.GPUEval")),
    )
    yield from odd_checks(bench, theirs)
    misspelt = theirs.replace("GPUEval", "GPUEvl")
    yield "a check's type is misspelt", UNKNOWN, bench.ours(misspelt), bench.theirs(misspelt)
    nothing = "name: bench\nscheduler: standalone\nevals: []\n"
    yield "the protocol has no checks", UNKNOWN, bench.ours(nothing), bench.theirs(nothing)


def odd_checks(bench: Bench, theirs: str) -> Iterator[tuple[str, str, tuple[str, str], str]]:
    """Yield faults that one check each finds, of which vetnode has none: it judges the same node by what it has."""
    script = '{{type: script, command: [sh, -c, "{}"], timeout: 2}}'
    entries = {
        "a name is not resolved": "{type: dns, names: [nowhere.invalid]}",
        "half of the memory is gone": "{type: memory, expected_mib: 99999999}",
        "a processor of another kind": "{type: cpu, model: Another, governors: []}",
        "memory is copied at a tenth of the speed": "{type: memory_bandwidth, min_gb_per_s: 9999}",
        "a directory cannot be written": "{type: filesystem, path: /proc, measure: write}",
        "a mount is missing": "{type: mounts, paths: [/scratch]}",
        "a network adapter is missing": "{type: nic, devices: [hsn0]}",
        "a service does not run": "{type: services, programs: [slurmctld-of-another]}",
        "a check hangs": script.format("sleep 60"),
        "a check crashes": script.format("kill -9 $$"),
        "a check prints garbage": script.format("echo {"),
    }
    for name, entry in entries.items():
        yield name, REFUSED, bench.ours(f"evals:\n- {entry}\n"), bench.theirs(theirs)


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def prepared(directory: Path) -> None:
    """Install vetnode, and put the stand-in for nvidia-smi beside it."""
    venv.create(directory / "vetnode", with_pip=True)
    pip = (directory / "vetnode/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, PEER, NEEDED], check=True, stderr=subprocess.DEVNULL)
    stand_in = directory / "nvidia-smi"
    stand_in.write_text(NVIDIA_SMI.format(python=sys.executable), encoding="utf-8")
    stand_in.chmod(0o755)


def main() -> None:
    """Print the table and report the counts."""
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as service:
        prepared(Path(name))
        lab = up(Spec(name=f"bench-{secrets.token_hex(3)}", nodes=1, gpus=4))
        found, right_ours, right_theirs = 0, 0, 0
        try:
            print("| Fault | Piolet | vetnode | Piolet's reason |\n|---|---|---|---|")
            bench = Bench(lab, Path(name))
            for fault, right, (verdict, reason), peer in rows(bench, service.getsockname()[1]):
                print(f"| {fault} | {verdict} | {peer} | {reason} |", flush=True)
                found += 1
                right_ours += (verdict == READY) == (right == READY)
                right_theirs += (peer == READY) == (right == READY)
        finally:
            lab.down()
    what = f"right verdicts on {found} faults and healthy nodes"
    right = measured(what, "", [right_ours], [right_theirs], peer=PEER, aim=f"ours >= {found}")
    report(__file__, [right, measured("a verdict on a node", "s", *bench.seconds.values(), peer=PEER)])


if __name__ == "__main__":
    main()
