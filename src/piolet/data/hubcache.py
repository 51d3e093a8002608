"""What broken downloads leave in a Hugging Face cache.

A repository's directory (models--OWNER--NAME) holds `blobs`, and `snapshots` whose links point into them. A download
that was ended leaves blobs/*.incomplete; one that was ended between the two leaves a blob that no snapshot points to.
Source: "Understand caching" of huggingface_hub's documentation.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")
QUIET_S = 3600.0
"""What changed within the last hour may belong to a download that runs."""


def is_repository(name: str) -> bool:
    """Return whether a directory of this name is a repository of such a cache."""
    return bool(_REPOSITORY.fullmatch(name))


def leftovers(directory: Path, now_s: float) -> Iterator[tuple[int, str]]:
    """Yield (allocated bytes, path) of each file of the repository at `directory` that nothing uses any more."""
    used = {link.readlink().name for link in (directory / "snapshots").rglob("*") if link.is_symlink()}
    for blob in (directory / "blobs").glob("*"):
        with suppress(FileNotFoundError):  # a download that runs renames its file
            status = blob.lstat()
            unused = blob.suffix == ".incomplete" or blob.name not in used
            if unused and stat.S_ISREG(status.st_mode) and status.st_mtime < now_s - QUIET_S:
                yield status.st_blocks * 512, str(blob)
