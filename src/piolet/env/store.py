"""The store of imported images: content-addressed, in a directory that nodes see, safe for any number of writers.

    images/<digest>/image.sqsh, image.json   an image, under the digest of its manifest; made by one rename
    names/<hash>.json                        what a name (registry/image:tag, architecture) last meant
    uses/<digest>                            its time of modification is when an environment last asked for the image
    blobs/                                   layers as registries send them, for other images and broken transfers
    claims/, work/                           imports in progress

Nothing that is visible is ever half there, and no access time is read or set.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from piolet.core.errors import PioletError, storage_errors
from piolet.core.files import read_json, write_json
from piolet.core.settings import Settings
from piolet.logbook import layout
from piolet.tools.oci.reference import Reference

IMAGE, RECORD = "image.sqsh", "image.json"


@dataclass(frozen=True, slots=True)
class Stored:
    """An image of the store; `env` (NAME=VALUE), `workdir` and `entrypoint` are what it wants for programs."""

    digest: str
    name: str
    architecture: str
    env: tuple[str, ...]
    workdir: str
    size_bytes: int
    imported_s: float
    path: Path
    used_s: float
    entrypoint: tuple[str, ...] = ()


class Store:
    """The store below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.claims = root / "claims"
        self.blobs = root / "blobs"

    def image(self, digest: str) -> Stored | None:
        """Return the image with this digest, None if it is not here."""
        directory = self._directory(digest)
        if not (directory / RECORD).is_file():
            return None
        record: dict[str, Any] = read_json(directory / RECORD)
        use = self.use(digest)
        used_s = use.stat().st_mtime if use.exists() else record["imported_s"]
        record |= {key: tuple(record.get(key, ())) for key in ("env", "entrypoint")}
        return Stored(**record, path=directory / IMAGE, used_s=used_s)

    def images(self) -> tuple[Stored, ...]:
        """Return all images, by name."""
        found = [self.image(f"sha256:{path.name}") for path in (self.root / "images").glob("*")]
        return tuple(sorted((image for image in found if image), key=lambda image: (image.name, image.digest)))

    def named(self, reference: Reference, architecture: str) -> Stored | None:
        """Return the image that a name meant when it was last asked for, None if it is not here."""
        exact = self.image(reference.digest) if reference.digest else None
        if exact and exact.architecture == architecture:
            return exact
        record = self.name_file(reference, architecture)
        return self.image(read_json(record)["digest"]) if record.is_file() else None

    def name(self, reference: Reference, architecture: str, digest: str) -> None:
        """Remember what a name means now."""
        write_json(
            self.name_file(reference, architecture),
            {"name": str(reference), "architecture": architecture, "digest": digest, "asked_s": time.time()},
        )

    def note_use(self, digest: str) -> None:
        """Remember that the image is asked for now."""
        with storage_errors(self.root, "note the use of an image"):
            self.use(digest).parent.mkdir(parents=True, exist_ok=True)
            self.use(digest).touch()

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Yield a directory to work in, on the store's file system; it is removed afterwards."""
        path = self.root / "work" / f"{os.uname().nodename}.{os.getpid()}.{os.urandom(4).hex()}"
        with storage_errors(self.root, "write to the store"):
            path.mkdir(parents=True)
            self.blobs.mkdir(exist_ok=True)
            try:
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)

    def publish(self, made: Path, record: Mapping[str, Any]) -> Stored:
        """Move the squashfs file `made` into the store with its record; if another was first, that one stays."""
        digest = str(record["digest"])
        ready = made.with_name("ready")
        ready.mkdir()
        made.rename(ready / IMAGE)
        _sync(ready / IMAGE)
        write_json(ready / RECORD, dict(record) | {"size_bytes": (ready / IMAGE).stat().st_size})
        self._directory(digest).parent.mkdir(parents=True, exist_ok=True)
        try:
            ready.rename(self._directory(digest))
        except OSError:
            if not self.image(digest):
                raise
        found = self.image(digest)
        if not found:
            raise PioletError("the image was removed while it was imported", where=digest, remedy="pull it again")
        return found

    def remove(self, image: Stored) -> None:
        """Remove an image in one step; its names then mean nothing here."""
        with self.work() as work:
            self._directory(image.digest).rename(work / "removed")
        self.use(image.digest).unlink(missing_ok=True)
        for path in (self.root / "names").glob("*.json"):
            if read_json(path)["digest"] == image.digest:
                path.unlink(missing_ok=True)

    def _directory(self, digest: str) -> Path:
        return self.root / "images" / digest.removeprefix("sha256:")

    def use(self, digest: str) -> Path:
        """Return the file whose time is when the image was last asked for."""
        return self.root / "uses" / digest.removeprefix("sha256:")

    def name_file(self, reference: Reference, architecture: str) -> Path:
        """Return the file that says what a name means."""
        return self.root / "names" / f"{name_key(reference, architecture)}.json"


def name_key(reference: Reference, architecture: str) -> str:
    """Return a name for files about the image that `reference` means on `architecture`."""
    return hashlib.sha256(f"{reference} {architecture}".encode()).hexdigest()


def store_of(settings: Settings, environ: Mapping[str, str]) -> Store:
    """Return the store that the settings name."""
    return Store(settings.env.store or layout.root(settings, environ) / "images")


def record(
    digest: str,
    name: str,
    architecture: str,
    *,
    env: tuple[str, ...] = (),
    workdir: str = "",
    entrypoint: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the record of an image that is imported now."""
    made = Stored(digest, name, architecture, env, workdir, 0, time.time(), Path(), 0, entrypoint)
    return {key: value for key, value in asdict(made).items() if key not in {"path", "used_s"}}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
