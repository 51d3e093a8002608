"""Images into the store: from a registry, from an OCI layout, from Podman's own storage, from a squashfs file.

However many ask for an image at once, on however many hosts, it is imported once, and the others wait.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from piolet.core.errors import ParseError, PioletError, UsageError, storage_errors
from piolet.core.run import Runner, SystemRunner
from piolet.env import claims
from piolet.env.claims import Claim, State
from piolet.env.store import Store, Stored, name_key, record
from piolet.tools import buildah, squashfs
from piolet.tools.oci import blobs, credentials, flatten, manifest
from piolet.tools.oci.layout import Layout
from piolet.tools.oci.manifest import Descriptor, ImageConfig, Manifest
from piolet.tools.oci.reference import Reference
from piolet.tools.oci.registry import PATIENCE_S, Registry, Waited

LAYERS_AT_ONCE = 3
_PODMAN_TIMEOUT_S = 3600.0

Fetch = Callable[[Descriptor, str, Path], None]
"""Puts a layer, uncompressed and verified against its diff_id, at a path."""


class NotInStore(PioletError):  # noqa: N818 - reads as the fact it states
    """A local image, which no registry has, is not in the store for this architecture."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(
            "no such image in the store", where=str(reference), remedy="import or build it; `piolet env images`"
        )


@dataclass(frozen=True, slots=True)
class Importer:
    """What imports need to know: the store, the nodes' architecture, the caller's variables, who is told."""

    store: Store
    architecture: str
    environ: Mapping[str, str]
    timeout_s: float = 7200.0
    patience_s: float = PATIENCE_S
    stale_s: float = claims.STALE_S
    runner: Runner = field(default_factory=SystemRunner)
    show: Callable[[State], None] = lambda _: None

    def obtain(self, reference: Reference) -> Stored:
        """Return the image of `reference` from the store; only if it is not there, pull it.

        Raises:
            PioletError: the registry refuses, is too busy, or has no such image; or the wait was too long.
        """
        return self._once(
            f"name-{name_key(reference, self.architecture)}",
            lambda: self.store.named(reference, self.architecture),
            lambda claim: self.pull(reference, claim),
        )

    def pull(self, reference: Reference, claim: Claim | None = None) -> Stored:
        """Ask the registry what `reference` means now, import that if it is not in the store, and remember it."""
        if reference.is_local:
            raise NotInStore(reference)
        with self._registry(reference, claim) as registry:
            found = self._manifest(registry, reference)
            stored = self._imported(
                found,
                str(reference),
                lambda: self._config(_blob(registry, found.config), str(reference)),
                lambda own: self._from_registry(registry, found, own),
                claim,
            )
        self.store.name(reference, self.architecture, stored.digest)
        return stored

    def digest(self, reference: Reference) -> str:
        """Return the digest of the image that `reference` means now, as the registry says; nothing is imported.

        Raises:
            WrongArchitecture: the image is not made for the nodes' architecture.
            PioletError: the registry refuses, is too busy, or has no such image.
        """
        if reference.is_local:
            stored = self.store.named(reference, self.architecture)
            if not stored:
                raise NotInStore(reference)
            return stored.digest
        with self._registry(reference, None) as registry:
            found = self._manifest(registry, reference)
            self._config(_blob(registry, found.config), str(reference))
        return found.digest

    def from_layout(self, path: Path, reference: Reference) -> Stored:
        """Import the image in an OCI directory or archive, under the local name `reference`."""
        layout = Layout(path)
        source, chosen = str(path), manifest.choose(layout.index, self.architecture, str(path))
        content = layout.read(chosen)
        if manifest.is_index(content, source):
            content = layout.read(manifest.choose(content, self.architecture, source))
        found = manifest.parse_manifest(content, source)

        def fetch(layer: Descriptor, diff_id: str, target: Path) -> None:
            with layout.blob(layer) as file:
                blobs.uncompress(file, target, diff_id)

        config = layout.read(found.config)
        stored = self._imported(found, str(reference), lambda: self._config(config, source), lambda _: fetch)
        self.store.name(reference, self.architecture, stored.digest)
        return stored

    def from_podman(self, name: str, reference: Reference) -> Stored:
        """Import an image of Podman's storage."""
        with self.store.work() as work:
            argv = ["podman", "save", "--quiet", "--format", "oci-dir", "--output", str(work / "saved"), name]
            self.runner.run(argv, timeout=_PODMAN_TIMEOUT_S)
            return self.from_layout(work / "saved", reference)

    def from_docker(self, source: str, reference: Reference) -> Stored:
        """Import an image of Docker's, `docker-daemon:NAME` or `docker-archive:FILE`, with skopeo."""
        with self.store.work() as work:
            argv = ["skopeo", "copy", "--quiet", source, f"oci:{work / 'copied'}:image"]
            self.runner.run(argv, timeout=_PODMAN_TIMEOUT_S)
            return self.from_layout(work / "copied", reference)

    def from_containerfile(self, context: Path, file: Path, arguments: Sequence[str], reference: Reference) -> Stored:
        """Build the Containerfile `file` in `context`, and import what came out."""
        arch = manifest.ARCHITECTURES.get(self.architecture, self.architecture)
        with self.store.work() as work:
            buildah.run(buildah.Build(context, file, str(reference), arch, arguments), work / "built")
            return self.from_layout(work / "built", reference)

    def from_squashfs(self, path: Path, reference: Reference) -> Stored:
        """Import a copy of a squashfs file, under its own SHA-256."""
        squashfs.superblock(path)
        with self.store.work() as work, storage_errors(path, "import the image"):
            copy = Path(shutil.copyfile(path, work / path.name))
            with copy.open("rb") as content:
                digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
            stored = self.store.publish(copy, record(digest, str(reference), self.architecture))
        self.store.name(reference, self.architecture, stored.digest)
        return stored

    def _once(self, key: str, ready: Callable[[], Stored | None], make: Callable[[Claim], Stored]) -> Stored:
        return claims.once(
            self.store.claims, key, ready, make, timeout_s=self.timeout_s, show=self.show, stale_s=self.stale_s
        )

    def _registry(self, reference: Reference, claim: Claim | None) -> Registry:
        def on_wait(waited: Waited) -> None:
            self._say(claim, f"{reference.registry} says {waited.reason}; next try in {waited.pause_s:.0f} s")

        credential = credentials.find(reference, self.environ, self.runner)
        return Registry(reference, credential, patience_s=self.patience_s, on_wait=on_wait)

    def _manifest(self, registry: Registry, reference: Reference) -> Manifest:
        content = registry.retried(lambda: registry.manifest(reference.version))
        if manifest.is_index(content, str(reference)):
            chosen = manifest.choose(content, self.architecture, str(reference))
            content = registry.retried(lambda: registry.manifest(chosen.digest))
        return manifest.parse_manifest(content, str(reference))

    def _say(self, claim: Claim | None, doing: str, done: int = 0, total: int = 0) -> None:
        if claim:
            claim.say(doing, done, total)
        self.show(claim.state if claim else replace(claims.own_state(), doing=doing))

    def _imported(
        self,
        found: Manifest,
        name: str,
        config: Callable[[], ImageConfig],
        fetcher: Callable[[Claim], Fetch],
        above: Claim | None = None,
    ) -> Stored:
        def make(claim: Claim) -> Stored:
            claim.above = above
            wanted = config()
            if len(wanted.diff_ids) != len(found.layers):
                raise ParseError("the image's configuration does not fit its layers", source=name)
            return self._made(found, wanted, name, claim, fetcher(claim))

        return self._once(found.digest.replace(":", "-"), lambda: self.store.image(found.digest), make)

    def _made(self, found: Manifest, config: ImageConfig, name: str, claim: Claim, fetch: Fetch) -> Stored:
        with self.store.work() as work:
            layers = [work / f"{index}.tar" for index in range(len(found.layers))]
            with ThreadPoolExecutor(LAYERS_AT_ONCE) as pool:
                jobs = [pool.submit(fetch, *job) for job in zip(found.layers, config.diff_ids, layers, strict=True)]
                try:
                    for job in jobs:
                        job.result()
                finally:
                    pool.shutdown(cancel_futures=True)
            self._say(claim, f"packing {name}")
            image = work / "packed.sqsh"
            squashfs.pack(image, lambda out: flatten.flatten(layers, out), said=work / "mksquashfs.log")
            made = record(
                found.digest,
                name,
                self.architecture,
                env=config.env,
                workdir=config.workdir,
                entrypoint=config.entrypoint,
            )
            return self.store.publish(image, made)

    def _config(self, content: bytes, source: str) -> ImageConfig:
        config = manifest.parse_config(content, source)
        if config.architecture not in {"", manifest.ARCHITECTURES.get(self.architecture, self.architecture)}:
            raise manifest.WrongArchitecture(self.architecture, config.architecture, source)
        return config

    def _from_registry(self, registry: Registry, found: Manifest, claim: Claim) -> Fetch:
        total, counter, lock = sum(layer.size_bytes for layer in found.layers), [0], threading.Lock()

        def count(size: int) -> None:
            with lock:
                counter[0] += size
                self._say(claim, "downloading", counter[0], total)

        def fetch(layer: Descriptor, diff_id: str, target: Path) -> None:
            path = blobs.download(registry, layer, self.store.blobs, count)
            with path.open("rb") as file:
                blobs.uncompress(file, target, diff_id)

        return fetch


def local_name(text: str, source: Path | str) -> str:
    """Return the name under which an image that is imported gets into the store: `text`, else made of its source."""
    stem = Path(str(source).rpartition("/")[2]).name.split(".")[0].split(":")[0].lower()
    name = text or stem
    if not name:
        raise UsageError("the image needs a name", where=str(source), remedy="give one: --name NAME")
    return name if "/" in name or "#" in name else f"localhost/{name}"


def machine() -> str:
    """Return this machine's architecture, as images of the store are kept by."""
    return os.uname().machine


def _blob(registry: Registry, descriptor: Descriptor) -> bytes:
    def read() -> bytes:
        with registry.blob(descriptor) as chunks:
            return b"".join(chunks)

    content: bytes = registry.retried(read)
    if manifest.digest_of(content) != descriptor.digest:
        raise PioletError("the registry sent a configuration that is not what it should be", where=descriptor.digest)
    return content
