"""Images of the site that nodes may mount in the kernel: the record that spank/trusted.c asks for."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from piolet.core.errors import Refused, storage_errors
from piolet.core.files import write_text
from piolet.tools import squashfs

SUFFIX = ".trusted"
"""Of the record beside an image: SHA256 BYTES MTIME_NS."""


def trust(image: Path, digest: str) -> Path:
    """Verify the SHA-256 of a squashfs image and leave its record, which holds until the image changes.

    Raises:
        Refused: the image has another digest, or others than root may change it.
        ParseError: it is no squashfs image.
        StorageError: it cannot be read, or the record not be written.
    """
    path = image.resolve()
    squashfs.superblock(path)
    with storage_errors(path, "read the image"), path.open("rb") as content:
        found, status = hashlib.file_digest(content, "sha256").hexdigest(), os.fstat(content.fileno())
    if found != digest.lower().removeprefix("sha256:"):
        remedy = "get it again, or give the digest that is meant"
        raise Refused(f"the image has the digest {found}", where=str(path), remedy=remedy)
    for each in (path, *path.parents):
        _refuse_others(each)
    record = path.with_name(path.name + SUFFIX)
    write_text(record, f"{found} {status.st_size} {status.st_mtime_ns}\n")
    return record


def _refuse_others(path: Path) -> None:
    status = path.stat()
    if status.st_uid or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(
            "others than root may change it, so nodes would not mount it",
            where=str(path),
            remedy="keep the image in a directory of root's: chown root, chmod go-w",
        )
