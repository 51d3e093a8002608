"""The image of an environment: where it is, what identifies it, what variables it brings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from piolet.core.errors import ParseError, PioletError, StorageError, storage_errors
from piolet.core.files import read_json, write_json
from piolet.core.run import Runner
from piolet.core.text import did_you_mean
from piolet.env import mounts
from piolet.env.edf import ENV_NAME, Value
from piolet.env.expanding import ExpansionError, expanded
from piolet.env.lookup import Context
from piolet.env.model import Image, ImageKind, Mount, MountKind, Variable
from piolet.env.store import store_of
from piolet.tools import squashfs
from piolet.tools.oci import reference
from piolet.tools.oci.reference import Reference

if TYPE_CHECKING:
    from piolet.env.importing import Importer

SUFFIXES = (".sqsh", ".squashfs", ".sqfs", ".img")
ENVIRONMENT_FILE = "etc/environment"  # where images that were made by enroot keep the variables of their OCI image
ENROOT_SCRIPT = "etc/rc"


def resolve(value: Value, text: str, context: Context, pinned: Reference | None, *, fetch: bool) -> Image:
    """Return the image that `text`, the expanded form of `value`, means; or its name is `pinned` to a digest.

    An image of a registry is taken from the store, and imported first if it is not there and `fetch` says so.

    Raises:
        ConfigError: there is no such file, it is neither squashfs nor a directory, or it cannot be imported.
    """
    if not _is_file(text):
        return _from_store(value, pinned or _parsed(value, text), context, fetch=fetch)
    path = _path(value, text, context)
    context.used.append(path)
    if path.is_dir():
        context.used.extend(path / inside for inside in (ENVIRONMENT_FILE, ENROOT_SCRIPT))
        return Image(ImageKind.DIRECTORY, path, value.origin)
    try:
        squashfs.superblock(path)
    except ParseError as error:
        raise value.error(f"{error.what}: {path}", "make the image again with mksquashfs, or copy it again") from error
    status = path.stat()
    return Image(ImageKind.SQUASHFS, path, value.origin, status.st_size, status.st_mtime_ns)


def tagged(value: Value, text: str) -> Reference | None:
    """Return the name of an image by its tag, which may come to mean another; None for files and digests."""
    name = None if _is_file(text) else _parsed(value, text)
    return name if name and name.tag else None


def identified(mount: Mount) -> Mount:
    """Return the mount with what identifies its squashfs file; other mounts as they are.

    Raises:
        ExpansionError: there is no such file, or it is not squashfs.
    """
    if mount.kind is not MountKind.SQUASHFS:
        return mount
    try:
        squashfs.superblock(Path(mount.source))
        status = Path(mount.source).stat()
    except ParseError as error:
        raise ExpansionError(
            f"{error.what}: {mount.source}", "make it again with mksquashfs, or copy it again"
        ) from error
    except (StorageError, OSError) as error:
        raise ExpansionError(f"no squashfs file to mount: {error}", "check the path and its permissions") from error
    return replace(mount, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def mount(value: Value, context: Context, environ: Mapping[str, str]) -> Mount:
    """Return the mount that `value` writes, its references replaced by `environ`."""
    try:
        parsed = mounts.parse(value.value, context.cwd, value.origin, lambda text: expanded(text, environ))
        if parsed.kind is MountKind.SQUASHFS:
            context.used.append(Path(parsed.source))
        return identified(parsed)
    except ExpansionError as error:
        raise value.error(str(error), error.remedy) from error


def entrypoint(image: Image, runner: Runner) -> tuple[str, ...] | None:
    """Return the words of the image's entrypoint, empty if it has none; None if it does not say.

    Images that enroot has made have a script in its place, which takes the program as its arguments.
    """
    if image.stored:
        return image.stored.entrypoint
    if image.kind is ImageKind.REGISTRY:
        return ()
    return ("/bin/sh", f"/{ENROOT_SCRIPT}") if _text_of(image, ENROOT_SCRIPT, runner) else None


def _text_of(image: Image, inside: str, runner: Runner) -> str:
    """Return the text of a file of an image that is no registry's; empty if it has none."""
    if image.kind is ImageKind.SQUASHFS:
        return squashfs.text_of(runner, image.path, inside)
    file = image.path / inside
    return file.read_text("utf-8", "surrogateescape") if file.is_file() else ""


def variables(image: Image, runner: Runner) -> tuple[Variable, ...]:
    """Return the variables that the image itself sets, from its /etc/environment."""
    if image.stored:
        return parse_variables("\n".join(image.stored.env), f"image {image.stored.name}")
    if image.kind is ImageKind.REGISTRY:
        return ()
    text = _text_of(image, ENVIRONMENT_FILE, runner)
    return parse_variables(text, f"image {image.path}:/{ENVIRONMENT_FILE}")


def parse_variables(text: str, origin: str) -> tuple[Variable, ...]:
    """Parse lines NAME=VALUE; a pair of quotes around the value is dropped, what is not such a line is not one."""
    found = []
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and ENV_NAME.match(name):
            found.append(Variable(name, _unquoted(value), origin))
    return tuple(found)


def sha256(image: Image, environ: Mapping[str, str]) -> str:
    """Return the SHA-256 of a squashfs image in hex; empty for one that is no file.

    The digest of a file is computed once and kept in the user's cache under what identifies the file: path, inode,
    size, time.
    """
    if image.kind is not ImageKind.SQUASHFS:
        return ""
    with storage_errors(image.path, "read the image"):
        status = image.path.stat()
    identity = [str(image.path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
    cached = _cache_file(repr(identity), environ)
    if cached.is_file():
        return str(read_json(cached)["sha256"])
    with storage_errors(image.path, "read the image"), image.path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    write_json(cached, {"image": str(image.path), "sha256": digest})
    return digest


def _cache_file(identity: str, environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME") or "/nonexistent")
    base = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    return base / "piolet" / "digests" / f"{name}.json"


def _path(value: Value, text: str, context: Context) -> Path:
    if text.startswith(("/", "./", "../")):
        path = context.cwd / text
        context.used.append(path)
        if not path.exists():
            raise value.error(f"no such image: {path}", "check the path")
        return Path(os.path.realpath(path))
    return _named(value, text, context)


def _is_file(text: str) -> bool:
    return text.startswith(("/", "./", "../")) or ("/" not in text and text.endswith(SUFFIXES))


def _parsed(value: Value, text: str) -> Reference:
    try:
        return reference.parse(text)
    except ValueError as error:
        raise value.error(f'image "{text}": {error}', "write a path with / or ./, or REGISTRY/IMAGE:TAG") from error


def _from_store(value: Value, name: Reference, context: Context, *, fetch: bool) -> Image:
    store, architecture = store_of(context.settings, context.environ), context.settings.env.arch or os.uname().machine
    stored = store.named(name, architecture)
    if stored is None and not fetch:
        return Image(ImageKind.REGISTRY, Path(str(name)), value.origin)
    if stored is None:
        try:
            with importer(architecture, context) as own:
                stored = own.obtain(name)
        except PioletError as error:
            raise value.error(f'image "{name}": {error.what}', error.remedy) from error
    if fetch:
        store.note_use(stored.digest)
    context.used.extend((store.name_file(name, architecture), stored.path))
    status = stored.path.stat()
    path = Path(os.path.realpath(stored.path))
    return Image(ImageKind.SQUASHFS, path, value.origin, status.st_size, status.st_mtime_ns, stored)


@contextmanager
def importer(architecture: str, context: Context) -> Iterator[Importer]:
    """Yield an importer for images of one architecture that tells on stderr how it goes."""
    from piolet.env.importing import Importer  # noqa: PLC0415 - an HTTP client; most starts find the image
    from piolet.env.telling import Teller  # noqa: PLC0415 - same

    teller = Teller()
    store, timeout_s = store_of(context.settings, context.environ), context.settings.env.import_timeout_s
    try:
        yield Importer(store, architecture, context.environ, timeout_s, show=teller)
    finally:
        teller.end()


def _named(value: Value, name: str, context: Context) -> Path:
    directory = context.settings.env.images
    context.used.extend([directory / name] if directory else [])
    if directory and (directory / name).exists():
        return Path(os.path.realpath(directory / name))
    if (context.cwd / name).exists():
        raise value.error(f'image "{name}" is not in the site\'s directory of images', f"write ./{name}")
    if directory is None:
        raise value.error(f'image "{name}" is a bare name, and no directory of images is set', "set env.images")
    known = [path.name for path in directory.glob("*")] if directory.is_dir() else []
    raise value.error(f'no image "{name}" in {directory}', did_you_mean(name, known))


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text
