"""`piolet env pull` against skopeo, umoci and mksquashfs, on an image that is made for it.

    python bench/image_import.py [--mb 300] [--layers 4] [--rounds 15]

Registry (docker-registry, on a free port of this machine), store and work lie in /var/tmp. Both begin from nothing in
each round, compress with the same options, and end with the image on the disk. The files
of the image compress to half.
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
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import in_turns, measured, report, version

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=300)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="piolet-bench-") as directory:
        work = Path(directory)
        make(work / "layout", options.layers, options.mb * 1_000_000)
        with registry(work) as host:
            push = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false"]
            subprocess.run([*push, f"oci:{work}/layout:made", f"docker://{host}/bench/image:1"], check=True)
            commands = programs(f"{host}/bench/image:1", work)
            ways = {name: lambda command=command: seconds(command, work) for name, command in commands.items()}
            times = in_turns(options.rounds, ways)
    versions = {tool: version(tool, "--version") for tool in ("skopeo", "umoci")}
    pull = f"pull of {options.mb} MB in {options.layers} layers"
    peers = "skopeo, umoci, mksquashfs"
    report(__file__, [measured(pull, "s", times["piolet"], times["peers"], peer=peers)], **versions)


if __name__ == "__main__":
    main()
