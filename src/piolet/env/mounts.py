"""Mounts: what an EDF writes, what the site adds, and what every container has. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import Path

from piolet.core.text import did_you_mean
from piolet.env.expanding import ExpansionError, fields
from piolet.env.model import Mount, MountKind

# Given by the container's construction anyway, so they ask for nothing.
_IMPLIED = {
    "rw",
    "bind",
    "rbind",
    "private",
    "rprivate",
    "nosuid",
    "nodev",
    "x-create=dir",
    "x-create=file",
    "x-create=auto",
}
_KEPT = {"ro", "noexec"}
_SQUASHFS = "sqsh"  # the source is a squashfs file, and its content is mounted, read-only
_IMPOSSIBLE = {
    "shared": "a container of the user's own cannot mount anything on the host; use private",
    "rshared": "a container of the user's own cannot mount anything on the host; use private",
    "slave": "mounts that the host makes later do not appear; use private",
    "rslave": "mounts that the host makes later do not appear; use private",
}
_SIZE_UNITS = {"k", "m", "g", "t", "%"}
MOST_FIELDS = 3

SYSTEM = (
    Mount(MountKind.BIND, "/proc", "/proc", (), "piolet"),
    Mount(MountKind.BIND, "/sys", "/sys", (), "piolet"),
    Mount(MountKind.BIND, "/dev", "/dev", ("dev",), "piolet"),
    Mount(MountKind.TMPFS, "", "/tmp", ("mode=1777",), "piolet"),  # noqa: S108 - the container's own, nobody shares it
    Mount(MountKind.BIND, "/etc/hosts", "/etc/hosts", ("ro", "optional"), "piolet"),
    Mount(MountKind.BIND, "/etc/hostname", "/etc/hostname", ("ro", "optional"), "piolet"),
    Mount(MountKind.BIND, "/etc/resolv.conf", "/etc/resolv.conf", ("ro", "optional"), "piolet"),
    Mount(MountKind.BIND, "/etc/localtime", "/etc/localtime", ("ro", "optional"), "piolet"),
)


def parse(text: str, cwd: Path, origin: str, expand: Callable[[str], str] = str) -> Mount:
    """Parse SRC, SRC:DST[:FLAGS] or tmpfs:DST[:size=SIZE]; `expand` is applied to each part after splitting.

    What identifies a squashfs file (flag ``sqsh``) is left for who looks at the file.

    Raises:
        ExpansionError: the text is not a mount, a flag is unknown or cannot be honoured.
    """
    parts = [expand(part) for part in fields(text)]
    if not all(parts) or len(parts) > MOST_FIELDS:
        raise ExpansionError(f"{text!r} is not a mount", "write SRC, SRC:DST, SRC:DST:FLAGS or tmpfs:DST:size=SIZE")
    if parts[0] == "tmpfs" and len(parts) > 1:
        return Mount(MountKind.TMPFS, "", _target(parts[1], cwd), _tmpfs_flags(parts[2:]), origin)
    source = _absolute(parts[0], cwd)
    target = _target(parts[1] if len(parts) > 1 else source, cwd)
    given = [flag for part in parts[2:] for flag in part.split("+")]
    if _SQUASHFS in given:
        flags = _bind_flags([flag for flag in given if flag != _SQUASHFS])
        return Mount(MountKind.SQUASHFS, source, target, tuple(flag for flag in flags if flag != "ro"), origin)
    return Mount(MountKind.BIND, source, target, _bind_flags(given), origin)


def _absolute(path: str, cwd: Path) -> str:
    if path.startswith("/"):
        return posixpath.normpath(path)
    if path in {".", ".."} or path.startswith(("./", "../")):
        return posixpath.normpath(cwd / path)
    remedy = "write an absolute path, or ./path relative to the directory you start from"
    raise ExpansionError(f"{path!r} is not a path", "write ${HOME}" if path.startswith("~") else remedy)


def _target(path: str, cwd: Path) -> str:
    target = "/" + _absolute(path, cwd).lstrip("/")
    if target == "/":
        raise ExpansionError("a mount cannot replace the root of the container", "mount at a directory below it")
    return target


def _bind_flags(given: list[str]) -> tuple[str, ...]:
    for flag in given:
        if flag in _IMPOSSIBLE:
            raise ExpansionError(f'mount flag "{flag}" cannot be honoured', _IMPOSSIBLE[flag])
        if flag not in _IMPLIED | _KEPT:
            known = _IMPLIED | _KEPT | {_SQUASHFS}
            raise ExpansionError(f'unknown mount flag "{flag}"', did_you_mean(flag, known))
    return tuple(dict.fromkeys(flag for flag in given if flag in _KEPT))


def is_size(text: str) -> bool:
    """Return whether `text` is a size of memory: a number, with k, m, g, t or % after it."""
    digits = text[:-1] if text[-1:].lower() in _SIZE_UNITS else text
    return digits.isascii() and digits.isdigit()


def _tmpfs_flags(texts: list[str]) -> tuple[str, ...]:
    given = [flag for text in texts for flag in text.split("+")]
    for flag in given:
        name, _, size = flag.partition("=")
        if name != "size" or not is_size(size):
            raise ExpansionError(f'a tmpfs does not know "{flag}"', "write size=NUMBER with k, m, g or %")
    return tuple(flag.lower() for flag in given)
