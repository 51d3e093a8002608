"""Scanning text: scripts, logs, environment and service files. Files are read, never run or sourced."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from piolet.core.errors import UsageError, storage_errors
from piolet.core.hints import hinting_lines
from piolet.core.redact import Secret, secrets
from piolet.guard import rules
from piolet.guard.finding import Place, Risk, Scan, joined, risk
from piolet.guard.habits import habits, is_shell, loaders

MAX_SCRIPT_BYTES = 16 << 20
"""A larger file is no script; it is not read, and said to be unchecked."""

_CHUNK_BYTES = 1 << 20
_PROBE_BYTES = 8192
_OTHERS = stat.S_IROTH

Scanner = Callable[[Path], Scan]


def scan_scripts(paths: Iterable[Path]) -> Scan:
    """Scan job scripts for secrets and for habits that leak them; a directory means all its text files.

    Raises:
        UsageError: a path does not exist.
        StorageError: a file cannot be read.
    """
    return joined("script", [scan_script(path) for path in _files(paths)])


def scan_environments(paths: Iterable[Path]) -> Scan:
    """Scan environment files (EDF, service.toml, .env, compose files) for secrets and loader variables; see above."""
    return joined("env", [_scan_whole(path, _of_environment) for path in _files(paths)])


def scan_logs(paths: Iterable[Path]) -> Scan:
    """Scan logs of any size for secrets, in bounded memory; see above."""
    return joined("logs", [scan_log(path) for path in _files(paths)])


def scan_script(path: Path) -> Scan:
    """Scan one job script."""
    return _scan_whole(path, _of_script)


def scan_log(path: Path) -> Scan:
    """Scan one log in pieces that end with a line; a line longer than a piece is cut."""
    risks: set[Risk] = set()
    line, size_bytes = 1, 0
    with storage_errors(path, "read"), path.open("rb") as log:
        while piece := log.read(_CHUNK_BYTES):
            piece += log.readline(_CHUNK_BYTES)
            size_bytes += len(piece)
            risks.update(in_lines(piece.decode("utf-8", "replace"), str(path), line))
            line += piece.count(b"\n")
    return Scan("log", 1, size_bytes, tuple(sorted(risks | set(_readable(path, risks)))))


def secrets_in(
    text: str, path: str, first_line: int = 1, *, inside: str = "", only: Collection[str] | None = None
) -> Iterator[Risk]:
    """Yield a risk for each secret of `text`, or for those of the kinds `only`."""
    for secret in secrets(text):
        if only is None or secret.kind in only:
            line = first_line + text.count("\n", 0, secret.start)
            yield risk(rules.SECRET, Place(path, line, inside), _described(secret))


def in_lines(
    text: str, path: str, first_line: int, *, inside: str = "", only: Collection[str] | None = None
) -> Iterator[Risk]:
    """The same for much text: look only at lines that may hold a secret, and at a private key as a whole."""
    if "PRIVATE KEY-----" in text:
        yield from secrets_in(text, path, first_line, inside=inside, only=only)
        return
    seen, number = 0, first_line
    for begin, end in hinting_lines(text):
        number += text.count("\n", seen, begin)
        seen = begin
        yield from secrets_in(text[begin:end], path, number, inside=inside, only=only)


def _scan_whole(path: Path, risks_of: Callable[[str, str], Iterator[Risk]]) -> Scan:
    with storage_errors(path, "read"):
        size_bytes = path.stat().st_size
        content = path.read_bytes() if size_bytes <= MAX_SCRIPT_BYTES else b""
    if size_bytes > MAX_SCRIPT_BYTES:
        reason = f"{size_bytes} bytes, over {MAX_SCRIPT_BYTES}"
        return Scan("script", 1, size_bytes, (risk(rules.TOO_LARGE, Place(str(path)), reason),))
    found = set(risks_of(content.decode("utf-8", "replace"), str(path)))
    return Scan("script", 1, size_bytes, tuple(sorted(found | set(_readable(path, found)))))


def _of_script(text: str, path: str) -> Iterator[Risk]:
    yield from _of_environment(text, path)
    if is_shell(text, path):
        for line, rule, seen in habits(text):
            yield risk(rule, Place(path, line), seen)


def _of_environment(text: str, path: str) -> Iterator[Risk]:
    yield from secrets_in(text, path)
    for line, name in loaders(text):
        yield risk(rules.LOADER, Place(path, line), f"{name} is set")


def _readable(path: Path, found: Iterable[Risk]) -> Iterator[Risk]:
    if any(each.rule == rules.SECRET.id for each in found) and path.stat().st_mode & _OTHERS:
        yield risk(rules.READABLE, Place(str(path)), "every user of this system may read it")


def _described(secret: Secret) -> str:
    given = f" given to {secret.name}" if secret.name else ""
    return f"{secret.kind}{given}, {secret.end - secret.start} characters"


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files; those of a directory in order, links and what is not text left out."""
    for path in paths:
        if path.is_dir():
            for directory, names, files in os.walk(path):
                names.sort()
                yield from (found for name in sorted(files) if _is_text(found := Path(directory, name)))
        elif path.exists():
            yield path
        else:
            raise UsageError("no such file", where=str(path), remedy="check the name; nothing was scanned")


def _is_text(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with storage_errors(path, "read"), path.open("rb") as file:
        return b"\0" not in file.read(_PROBE_BYTES)
