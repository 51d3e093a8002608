"""New values in a service's file as the user wrote it: the end of its lease, the digest of its image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from piolet.core.errors import ConfigError
from piolet.core.run import Runner
from piolet.service import reading
from piolet.service.reading import ServiceFile
from piolet.tools.oci import credentials, manifest, reference
from piolet.tools.oci.reference import Reference
from piolet.tools.oci.registry import PATIENCE_S, Registry


def renewed(file: ServiceFile, until: date) -> ServiceFile:
    """Return the file with another date in its line `expires`; nothing is written.

    Raises:
        ConfigError: there is no such line.
    """
    return _with_line(file, "expires", r"\d{4}-\d{2}-\d{2}", until.isoformat())


def pinned(file: ServiceFile, image: Reference, digest: str) -> ServiceFile:
    """Return the file with `image` by its digest in its line `image`; nothing is written.

    Raises:
        ConfigError: there is no such line.
    """
    return _with_line(file, "image", r"(?:\"[^\"]*\"|'[^']*')", f'"{image.pinned(digest)}"')


def named(file: ServiceFile, image: str) -> Reference:
    """Return the image that `image` names, or the file's own if that is empty.

    Raises:
        ConfigError: it is not the name of an image.
    """
    try:
        return reference.parse(image or file.service.image)
    except ValueError as error:
        raise file.document.error(f"image: {error}", "image", remedy="write REGISTRY/NAME:TAG") from error


def digest(image: Reference, environ: Mapping[str, str], runner: Runner, *, patience_s: float = PATIENCE_S) -> str:
    """Return the digest of what the registry has under the name now: of all architectures, if it is made for several.

    Raises:
        PioletError: the registry refuses, is too busy, or has no such image.
    """
    with Registry(image, credentials.find(image, environ, runner), patience_s=patience_s) as registry:
        content: bytes = registry.retried(lambda: registry.manifest(image.version))
    return manifest.digest_of(content)


def _with_line(file: ServiceFile, key: str, value: str, new: str) -> ServiceFile:
    """Return the file with `new` for the value, a pattern, in the line of `key`; the rest of the line stays."""
    lines = file.source.splitlines(keepends=True)
    position = file.document.positions.get(key)
    line = lines[position.line - 1] if position else ""
    found = re.fullmatch(rf"(\s*{key}\s*=\s*){value}(.*)", line, re.DOTALL)
    if position is None or found is None:
        raise _no_line(file, key, new)
    lines[position.line - 1] = f"{found[1]}{new}{found[2]}"
    return reading.parse("".join(lines).encode(), file.document.path)


def _no_line(file: ServiceFile, key: str, new: str) -> ConfigError:
    return file.document.error("there is no line with this key alone", key, remedy=f"write it: {key} = {new}")
