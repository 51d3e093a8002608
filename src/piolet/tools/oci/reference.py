"""Names of images in registries, as EDFs, Docker and Podman write them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

HUB = "docker.io"
DEFAULT_TAG = "latest"
LOCAL = "localhost"
"""The registry of images that were imported or built here: nothing is ever pulled from it."""

_REGISTRY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?\Z")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry, by tag or by digest (one of both is empty); `user` chooses among credentials."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""
    user: str = ""

    def __str__(self) -> str:
        version = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.registry}/{self.repository}{version}"

    @property
    def version(self) -> str:
        """The tag or the digest, as a registry is asked for it."""
        return self.digest or self.tag

    @property
    def is_local(self) -> bool:
        """Whether it names an image that was made here."""
        return self.registry == LOCAL

    def pinned(self, digest: str) -> Reference:
        """Return the same image by its digest."""
        return replace(self, tag="", digest=digest)


def parse(text: str) -> Reference:
    """Parse ``[docker://][USER@][REGISTRY#|REGISTRY/]IMAGE[:TAG|@sha256:DIGEST]``.

    Without a registry it is Docker Hub's; single names there are below ``library/``. Without a tag it is ``latest``.

    Raises:
        ValueError: it is not such a name; the message says which part is wrong.
    """
    rest = text.removeprefix("docker://")
    user, rest = _user(rest)
    registry, hash_sign, image = rest.rpartition("#")
    if not hash_sign:
        registry, image = _registry(rest)
    name, _, digest = image.partition("@")
    name, tag = _tag(name)
    registry = {"index.docker.io": HUB, "registry-1.docker.io": HUB, "": HUB}.get(registry, registry)
    if registry == HUB and "/" not in name:
        name = f"library/{name}"
    found = Reference(registry, name, "" if digest else tag or DEFAULT_TAG, digest, user)
    _check(found)
    return found


def _user(text: str) -> tuple[str, str]:
    before, at, after = text.partition("@")
    return (before, after) if at and not after.startswith("sha256:") else ("", text)


def _registry(text: str) -> tuple[str, str]:
    """Split at the first slash if what is before it can only be a host."""
    first, slash, rest = text.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == LOCAL)
    return (first, rest) if is_host else ("", text)


def _tag(name: str) -> tuple[str, str]:
    before, colon, tag = name.rpartition(":")
    return (before, tag) if colon and "/" not in tag else (name, "")


def _check(found: Reference) -> None:
    if not _REGISTRY.match(found.registry):
        raise ValueError(f"{found.registry!r} is not the name of a registry")
    if not _REPOSITORY.match(found.repository):
        hint = ": names are in lower case" if found.repository != found.repository.lower() else ""
        raise ValueError(f"{found.repository!r} is not the name of an image{hint}")
    if found.tag and not _TAG.match(found.tag):
        raise ValueError(f"{found.tag!r} is not a tag")
    if found.digest and not _DIGEST.match(found.digest):
        raise ValueError(f"{found.digest!r} is not a digest: sha256: and 64 hexadecimal digits")
