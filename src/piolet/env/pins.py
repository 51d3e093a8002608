"""The lock file of an environment, `NAME.lock.json` beside `NAME.toml`: the image that each tag meant when it was made.

    {"schema": 1, "images": {"x86_64": {"image": "docker.io/library/ubuntu:24.04", "digest": "sha256:..."}}}

JSON, since every `.toml` file of the search path is an environment. Only the lock of the environment that is asked for
counts, not those of what it builds on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from piolet.core.errors import ParseError, UsageError
from piolet.core.files import read_json, write_json
from piolet.env.edf import Value
from piolet.tools.oci import reference
from piolet.tools.oci.reference import Reference

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Pin:
    """The name of an image, by its tag, and the digest of the manifest that it is locked to."""

    image: str
    digest: str


def path_of(edf: Path) -> Path:
    """Return where the lock of the EDF file `edf` is."""
    return edf.with_name(f"{edf.name.removesuffix('.toml')}.lock.json")


def read(lock: Path) -> dict[str, Pin]:
    """Return the pins of a lock file by architecture.

    Raises:
        UsageError: it is not a lock file, or one of another version.
    """
    try:
        data = read_json(lock)
        pins = {name: Pin(**pin) for name, pin in data["images"].items()}
        right = data["schema"] == SCHEMA and all(_is_right(pin) for pin in pins.values())
    except (ParseError, AttributeError, KeyError, TypeError):
        right = False
    if not right:
        raise UsageError(
            "not the lock of an environment, or of another version of Piolet",
            where=str(lock),
            remedy="remove it, and lock the environment again: piolet env lock NAME",
        )
    return pins


def write(lock: Path, pins: Mapping[str, Pin]) -> None:
    """Write a lock file."""
    write_json(lock, {"schema": SCHEMA, "images": {name: asdict(pin) for name, pin in sorted(pins.items())}})


def pinned(edf: Path, value: Value, name: Reference | None, architecture: str) -> Reference | None:
    """Return the image `name`, which `value` asks for, by its locked digest; None if the environment has no lock.

    `name` is None for what no registry can change, and so no lock holds.

    Raises:
        ConfigError: the lock was made for another image.
    """
    lock = path_of(edf)
    pin = read(lock).get(architecture) if lock.exists() else None
    if pin and name and pin.image == str(name):
        return name.pinned(pin.digest)
    if pin or (name and lock.exists()):
        has = f"{pin.image} for {architecture}" if pin else f"no image for {architecture}"
        raise value.error(
            f"the lock of the environment no longer fits: it has {has}, not {name or value.value}\n  lock:  {lock}",
            f"set the image back, or lock what it is now: piolet env lock {edf} --update",
        )
    return None


def _is_right(pin: Pin) -> bool:
    try:
        reference.parse(f"{reference.parse(pin.image).pinned(pin.digest)}")
    except (AttributeError, ValueError):
        return False
    return True
