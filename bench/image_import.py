"""`piolet env pull` against skopeo, umoci and mksquashfs, on an image that is made for it.

    python bench/image_import.py [--mb 300] [--layers 4] [--rounds 7]

Registry (docker-registry, on a free port of this machine), store and work lie in /var/tmp. Both begin from nothing in
each round, in alternating order, compress with the same options, and end with the image on the disk. The files
of the image compress to half. Ratios are those of each pair.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import random
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from piolet import __version__

FILE_BYTES = 100_000
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
PACKED = ("-comp", "zstd", "-Xcompression-level", "3")  # as piolet.tools.squashfs packs
KIND = "application/vnd.oci.image"


def blob(directory: Path, content: bytes, kind: str) -> dict[str, object]:
    """Write a blob and return its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    (directory / "blobs/sha256" / digest).write_bytes(content)
    return {"mediaType": f"{KIND}.{kind}", "digest": f"sha256:{digest}", "size": len(content)}


def layer(number: int, size: int) -> bytes:
    """Return a tar file of `size` bytes in files of 100 kB, the same each time."""
    noise, out = random.Random(number), io.BytesIO()  # noqa: S311 - the same each time
    with tarfile.open(fileobj=out, mode="w") as archive:
        for index in range(size // FILE_BYTES):
            member = tarfile.TarInfo(f"layer{number}/{index // 100}/file{index}")
            member.size, member.mode = FILE_BYTES, 0o644
            archive.addfile(member, io.BytesIO(noise.randbytes(40_000) + noise.randbytes(10_000) * 6))
    return out.getvalue()


def make(directory: Path, layers: int, size: int) -> None:
    """Write an OCI layout, tagged `made`; `gzip` packs the layers."""
    (directory / "blobs/sha256").mkdir(parents=True)
    packed, diff_ids = [], []
    for number in range(layers):
        content = layer(number, size // layers)
        diff_ids.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        zipped = subprocess.run(["gzip", "-n"], input=content, stdout=subprocess.PIPE, check=True).stdout
        packed.append(blob(directory, zipped, "layer.v1.tar+gzip"))
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    described = {"architecture": MACHINE, "os": "linux", "config": {}, "rootfs": rootfs}
    config = blob(directory, json.dumps(described).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{KIND}.manifest.v1+json", "config": config, "layers": packed}
    found = blob(directory, json.dumps(manifest).encode(), "manifest.v1+json")
    named = found | {"annotations": {"org.opencontainers.image.ref.name": "made"}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@contextmanager
def registry(work: Path) -> Iterator[str]:
    """Run a registry; yields its host and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (work / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {work}/data}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    argv = ["docker-registry", "serve", str(work / "config.yml")]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while subprocess.run(["curl", "-sf", f"http://{host}/v2/"], capture_output=True, check=False).returncode:
                if server.poll() is not None:
                    sys.exit("docker-registry did not start")
                time.sleep(0.05)
            yield host
        finally:
            server.terminate()


def programs(name: str, work: Path) -> dict[str, str]:
    """Return the shell command of both; each writes below `work`/round only."""
    here = work / "round"
    steps = [
        ["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", f"docker://{name}", f"oci:{here}/l:m"],
        ["umoci", "unpack", "--rootless", "--image", f"{here}/l:m", f"{here}/unpacked"],
        ["mksquashfs", f"{here}/unpacked/rootfs", f"{here}/image.sqsh", "-all-root", "-quiet", "-no-progress", *PACKED],
        ["sync", f"{here}/image.sqsh"],
    ]
    return {"peers": " && ".join(map(shlex.join, steps)), "piolet": f"{sys.executable} -m piolet env pull {name}"}


def seconds(command: str, work: Path) -> float:
    """Run a command in a new directory, and return its wall-clock seconds."""
    environ = os.environ | {"PIOLET_ENV_STORE": str(work / "round/store")}
    (work / "round").mkdir()
    started = time.perf_counter()
    done = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{command} ended with {done.returncode}: {done.stderr}")
    shutil.rmtree(work / "round")
    return taken


def measured(commands: Mapping[str, str], work: Path, rounds: int) -> dict[str, list[float]]:
    """Return the times of both in pairs; the first round warms the cache and does not count."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name in sorted(commands, reverse=bool(turn % 2)):
            taken = seconds(commands[name], work)
            times[name] += [taken] if turn else []
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=300)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="piolet-bench-") as directory:
        work = Path(directory)
        make(work / "layout", options.layers, options.mb * 1_000_000)
        with registry(work) as host:
            push = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false"]
            subprocess.run([*push, f"oci:{work}/layout:made", f"docker://{host}/bench/image:1"], check=True)
            times = measured(programs(f"{host}/bench/image:1", work), work, options.rounds)
    ratios = [own / peer for own, peer in zip(times["piolet"], times["peers"], strict=True)]
    for name, values in (times | {"ratio": ratios}).items():
        spread = f"({min(values):.2f} - {max(values):.2f}, n={options.rounds})"
        print(f"{name:8} {statistics.median(values):6.2f}  {spread}", file=sys.stderr)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}"
    versions = {tool: version(tool) for tool in ("skopeo", "umoci", "mksquashfs", "docker-registry")}
    found = {"piolet": __version__, "versions": versions, "machine": machine, "image_mb": options.mb}
    print(json.dumps(found | {"times_s": times, "ratios": ratios}, indent=2))


def version(tool: str) -> str:
    """Return the first line of what a tool says of its version."""
    argv = [tool, "-version" if tool == "mksquashfs" else "--version"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.partition("\n")[0]


if __name__ == "__main__":
    main()
