"""What a registry or an archive says of an image: index, manifest, configuration. Pure.

Both forms that are in use are read: those of the OCI image specification 1.1 and of Docker's image manifest 2.2.
An index without an image for the machine is WrongArchitecture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from piolet.core.errors import ParseError, PioletError

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What `uname -m` says, and the name that images have for it."""


class WrongArchitecture(PioletError):  # noqa: N818 - reads as the fact it states
    """The image is not made for `machine`, as ``uname -m`` says, only for what is `there`."""

    def __init__(self, machine: str, there: str, source: str) -> None:
        super().__init__(
            f"the image is not made for {machine}, only for {there or 'nothing that is named'}",
            where=source,
            remedy="choose an image for the nodes' architecture; --arch says which one the nodes have",
        )


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: what it is, its SHA-256 as ``sha256:...``, and its size in bytes."""

    media_type: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How the image wants programs to run, and the SHA-256 of each of its layers once uncompressed."""

    architecture: str
    diff_ids: tuple[str, ...]
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image of one architecture; `digest` is that of the manifest itself and stands for all of it."""

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def digest_of(content: bytes) -> str:
    """Return the digest of `content` as manifests write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def is_index(content: bytes, source: str) -> bool:
    """Return whether `content` lists images of several architectures, rather than being one."""
    return isinstance(_object(content, source).get("manifests"), list)


def choose(content: bytes, machine: str, source: str) -> Descriptor:
    """Return the manifest for `machine` (as ``uname -m`` says) from an index.

    Raises:
        ParseError: it is not an index.
        PioletError: the image is not made for this architecture.
    """
    entries = [entry for entry in _object(content, source).get("manifests", []) if isinstance(entry, dict)]
    wanted = ARCHITECTURES.get(machine, machine)
    platforms = [(entry.get("platform") or {}) for entry in entries]
    for entry, platform in zip(entries, platforms, strict=True):
        if platform.get("architecture") == wanted and platform.get("os", "linux") == "linux":
            return _descriptor(entry, source)
    if len(entries) == 1 and not platforms[0]:
        return _descriptor(entries[0], source)
    there = sorted({str(platform.get("architecture")) for platform in platforms} - {"unknown", "None"})
    raise WrongArchitecture(machine, ", ".join(there), source)


def parse_manifest(content: bytes, source: str) -> Manifest:
    """Parse a manifest.

    Raises:
        ParseError: it is not a manifest of an image.
    """
    data = _object(content, source)
    layers = data.get("layers")
    if not isinstance(data.get("config"), dict) or not isinstance(layers, list):
        raise ParseError("not the manifest of an image", source=source, text=content[:80].decode("utf-8", "replace"))
    found = tuple(_descriptor(layer, source) for layer in layers)
    return Manifest(digest_of(content), _descriptor(data["config"], source), found)


def parse_config(content: bytes, source: str) -> ImageConfig:
    """Parse the configuration of an image.

    Raises:
        ParseError: it is not one.
    """
    data = _object(content, source)
    settings = data.get("config") or {}
    rootfs = data.get("rootfs") or {}
    try:
        return ImageConfig(
            architecture=str(data.get("architecture", "")),
            diff_ids=_strings(rootfs.get("diff_ids")),
            env=_strings(settings.get("Env")),
            entrypoint=_strings(settings.get("Entrypoint")),
            command=_strings(settings.get("Cmd")),
            workdir=str(settings.get("WorkingDir") or ""),
        )
    except (AttributeError, TypeError) as error:
        raise ParseError("not the configuration of an image", source=source) from error


def _strings(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - as in JSON
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value or ())


def _descriptor(entry: Any, source: str) -> Descriptor:  # noqa: ANN401 - as in JSON
    try:
        found = Descriptor(str(entry.get("mediaType", "")), str(entry["digest"]), int(entry["size"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ParseError("a blob of the image is not described", source=source, text=str(entry)) from error
    algorithm, _, hexadecimal = found.digest.partition(":")
    if algorithm != "sha256" or len(hexadecimal) != 64 or set(hexadecimal) - set("0123456789abcdef"):  # noqa: PLR2004 - of SHA-256
        raise ParseError("not a SHA-256 digest", source=source, text=found.digest)
    return found


def _object(content: bytes, source: str) -> Mapping[str, Any]:
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ParseError(f"not valid JSON: {error}", source=source) from error
    if not isinstance(data, dict):
        raise ParseError("not a JSON object", source=source)
    return data
