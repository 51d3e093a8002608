"""OCI images made of layers that a test spells out, and a real registry that wants a password."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "ada", "secret"
HTPASSWD = "ada:$2y$04$MEA6GslxjUdPYvFoiy6ExeENxGTYBJ1/RrX2l4yayMqW2N.5CuF3W\n"


def entry(name, content=None, **fields):
    """A member of a layer: a directory without content, else a file."""
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    member.mode = 0o755 if content is None else 0o644
    for key, value in fields.items():
        setattr(member, key, value)
    return member, content or b""


def link(name, target, kind=tarfile.LNKTYPE):
    return entry(name, b"", type=kind, linkname=target)


def layer(*entries) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in entries:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def busybox_layer() -> bytes:
    return layer(
        entry("bin/"),
        entry("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
        *[link(f"bin/{name}", "busybox", tarfile.SYMTYPE) for name in ("sh", "cat", "ls", "env")],
        entry("etc/"),
        entry("etc/release", b"made by a test\n"),
    )


def layout(directory: Path, layers: Sequence[bytes], machines=("amd64", "arm64"), **config) -> Path:
    """Write an OCI layout with one index of an image for each architecture, tagged `made`."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media_type: str) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    kind = "application/vnd.oci.image"
    packed = [blob(gzip.compress(part, 1, mtime=0), f"{kind}.layer.v1.tar+gzip") for part in layers]
    manifests = []
    for machine in machines:
        diff_ids = [f"sha256:{hashlib.sha256(part).hexdigest()}" for part in layers]
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        described = {"architecture": machine, "os": "linux", "config": config, "rootfs": rootfs}
        made = blob(json.dumps(described).encode(), f"{kind}.config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "config": made, "layers": packed}
        found = blob(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
        manifests.append(found | {"platform": {"architecture": machine, "os": "linux"}})
    index = {"schemaVersion": 2, "mediaType": f"{kind}.index.v1+json", "manifests": manifests}
    inner = blob(json.dumps(index).encode(), f"{kind}.index.v1+json")
    named = inner | {"annotations": {"org.opencontainers.image.ref.name": "made"}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory


def archive(directory: Path, target: Path) -> Path:
    with tarfile.open(target, "w") as out:
        for path in sorted(directory.rglob("*")):
            out.add(path, str(path.relative_to(directory)), recursive=False)
    return target


@dataclass(frozen=True, slots=True)
class RealRegistry:
    """Debian's docker-registry on a port of its own; its log counts what was asked for."""

    host: str
    log: Path

    def push(self, layout: Path, name: str) -> str:
        argv = ["skopeo", "copy", "--quiet", "--all", "--insecure-policy", "--dest-tls-verify=false"]
        argv += ["--dest-creds", f"{USER}:{PASSWORD}", f"oci:{layout}:made", f"docker://{self.host}/{name}"]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        return f"{self.host}/{name}"

    def asked(self, part: str) -> int:
        """How often it was asked for a path with `part` in it, and gave it."""
        lines = self.log.read_text(errors="replace").splitlines()
        return sum(1 for line in lines if '"GET /v2/' in line and part in line and '" 20' in line)


def serve(directory: Path):
    """Start a registry; yields it, and ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (directory / "htpasswd").write_text(HTPASSWD)
    (directory / "config.yml").write_text(
        "version: 0.1\nlog: {accesslog: {disabled: false}}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\nauth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}\n"
    )
    log = directory / "log"
    with log.open("w") as out:
        server = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.02)
        yield RealRegistry(f"127.0.0.1:{port}", log)
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(directory / "data", ignore_errors=True)
