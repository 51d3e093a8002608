"""Files of `torch.save`: since PyTorch 1.6 a zip archive, whose directory is written last.

Source: "Serialization semantics" of PyTorch's documentation. The older form, a bare pickle, has no end that could be
checked without its tensors; such files count as whole unless they are empty.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

from piolet.data.checkpoints import inert
from piolet.data.checkpoints.listing import Listing

_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")
_ZIP = b"PK\x03\x04"


def faults(listing: Listing) -> Iterator[str]:
    """Yield what is wrong with the files of `torch.save` in the directory itself."""
    for name in sorted(listing.top()):
        if name.endswith(_ENDINGS) and not _is_whole(listing, name):
            yield f"{name} is cut off"


def _is_whole(listing: Listing, name: str) -> bool:
    with listing.open(name) as stream:
        start = stream.read(len(_ZIP))
        return zipfile.is_zipfile(stream) if start == _ZIP else len(start) == len(_ZIP)


def load(listing: Listing, name: str) -> Any:  # noqa: ANN401 - a pickle holds any value
    """Return the structure of what `torch.save` wrote, without tensors; ValueError if it cannot be read."""
    try:
        with listing.open(name) as stream, zipfile.ZipFile(stream) as archive:
            pickled = next((each for each in archive.namelist() if each.endswith("/data.pkl")), "")
            with archive.open(pickled) as content:
                return inert.load(content)
    except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        raise ValueError(f"not a file of torch.save: {error}") from error
