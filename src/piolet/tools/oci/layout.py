"""Images in directories and archives of the OCI image layout 1.1, as skopeo, podman and buildah write them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from piolet.core.errors import ParseError, storage_errors
from piolet.tools.oci.manifest import Descriptor


class Layout:
    """An OCI image layout; `index` is its index.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: dict[str, tarfile.TarInfo] | None = None if path.is_dir() else _members(path)
        with self._opened("index.json") as file:
            self.index = file.read()

    @contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """Yield a blob, open for reading; threads may read several at once, and the caller verifies them."""
        with self._opened(f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}") as file:
            yield file

    def read(self, descriptor: Descriptor) -> bytes:
        """Return a small blob."""
        with self.blob(descriptor) as file:
            return file.read()

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        is_there = (self.path / name).is_file() if self._archive is None else name in self._archive
        if not is_there:
            raise ParseError(f"not an OCI image layout: it has no {name}", source=str(self.path))
        with storage_errors(self.path, "read the image"):
            if self._archive is None:
                with (self.path / name).open("rb") as file:
                    yield file
            else:
                with tarfile.open(self.path, "r:") as archive:
                    yield cast("BinaryIO", archive.extractfile(self._archive[name]))


def is_docker_archive(path: Path) -> bool:
    """Return whether `path` is an archive as docker save writes it, which is none of the OCI's."""
    if not path.is_file() or not tarfile.is_tarfile(path):
        return False
    names = _members(path)
    return "manifest.json" in names and "index.json" not in names


def _members(path: Path) -> dict[str, tarfile.TarInfo]:
    try:
        with storage_errors(path, "read the image"), tarfile.open(path, "r:") as archive:
            return {member.name.removeprefix("./"): member for member in archive.getmembers() if member.isreg()}
    except tarfile.TarError as error:
        raise ParseError(f"not an archive of an image: {error}", source=str(path)) from error
