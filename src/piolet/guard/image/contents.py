"""What a file of an image, its variables and its build steps give away or let happen."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

from piolet.core.redact import TOKENS
from piolet.guard import rules
from piolet.guard.finding import Place, Risk, risk
from piolet.guard.habits import loaders
from piolet.guard.image.entries import Entry
from piolet.guard.texts import MAX_SCRIPT_BYTES, in_lines, secrets_in

_PROBE_BYTES = 8192
_CREDENTIALS = re.compile(
    r"/(?:\.netrc|\.pgpass|\.my\.cnf|\.pypirc|\.git-credentials|\.vault-token|id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?"
    r"|\.docker/config\.json|\.aws/credentials|\.kube/config|\.azure/\w+\.json|\.config/gh/hosts\.yml"
    r"|\.config/gcloud/\S*credentials\S*|\.config/enroot/\.credentials|containers/auth\.json"
    r"|\.(?:cache/)?huggingface/token|\.gnupg/private-keys-v1\.d/.+"
    r"|etc/ssh/ssh_host_\w+_key|etc/munge/munge\.key|etc/krb5\.keytab)$"
)
_LIBRARIES = re.compile(
    r"(?:usr/|opt/[^/]+/)?(?:lib(?:32|64|exec)?|share|include|pkgs|src)/|usr/local/(?:lib|share)/|var/lib/(?:dpkg|apt|rpm)/"
    r"|.*(?:(?:site|dist)-packages|node_modules|conda-meta)/"
)
"""Where packages put files; documentation and tests there are full of passwords that are none."""
_ENVIRONMENTS = re.compile(r"etc/environment|etc/profile|etc/profile\.d/.+|\.singularity\.d/env/.+")
_LOADERS = ("LD_PRELOAD", "LD_AUDIT", "PYTHONSTARTUP", "BASH_ENV")
_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
_OPEN = ("tmp", "var/tmp", "dev/shm")


def content_of(entry: Entry) -> bytes | None:
    """Return the content of a text; None for what is none, or is too large."""
    if not stat.S_ISREG(entry.mode) or not 0 < entry.size_bytes <= MAX_SCRIPT_BYTES:
        return None
    head = entry.read(_PROBE_BYTES)
    return None if b"\0" in head else head + entry.read(MAX_SCRIPT_BYTES)


def risks_of(entry: Entry, content: bytes | None, place: Place) -> Iterator[Risk]:
    """Yield the risks of a file: its rights, its name, and what is in its text."""
    regular = stat.S_ISREG(entry.mode)
    if regular and entry.mode & (stat.S_ISUID | stat.S_ISGID):
        yield risk(rules.SETUID, place, f"mode {stat.S_IMODE(entry.mode):04o}")
    if regular and entry.has_capabilities:
        yield risk(rules.SETUID, place, "it has file capabilities")
    if regular and entry.size_bytes and _CREDENTIALS.search(f"/{entry.path}"):
        yield risk(rules.CREDENTIAL_FILE, place, f"{entry.size_bytes} bytes")
    if regular and entry.size_bytes > MAX_SCRIPT_BYTES and b"\0" not in entry.read(_PROBE_BYTES):
        yield risk(rules.TOO_LARGE, place, f"a text of {entry.size_bytes} bytes, over {MAX_SCRIPT_BYTES}")
    if content:
        yield from _in_text(entry.path, content.decode("utf-8", "replace"), place)


def risks_of_config(env: Collection[str], history: Collection[str], path: str) -> Iterator[Risk]:
    """Yield the risks of an image's variables and of the commands that built it."""
    yield from secrets_in("\n".join(env), path, inside="ENV")
    yield from secrets_in("\n".join(history), path, inside="history")
    for name, _, value in (each.partition("=") for each in env):
        if name in _LOADERS and value:
            yield risk(rules.LOADER, Place(path, inside="ENV"), f"{name} is set")
        if name == "LD_LIBRARY_PATH" and value:
            yield risk(rules.LIBRARY_PATH, Place(path, inside="ENV"), f"{name}={value[:200]}")


def risks_of_paths(env: Collection[str], writable: Collection[str], path: str) -> Iterator[Risk]:
    """Yield each directory that programs or libraries are searched in and that another may write to."""
    for name, _, value in (each.partition("=") for each in env):
        for part in value.split(":") if name in _SEARCHED and value else ():
            directory = str(PurePosixPath(part)).strip("/")
            if part and not part.startswith("/"):
                yield risk(rules.SEARCH_PATH, Place(path, inside="ENV"), f"{name} has {part[:200]}, which is relative")
            elif not part and name == "PATH":
                yield risk(rules.SEARCH_PATH, Place(path, inside="ENV"), f"{name} has an empty part: any directory")
            elif part and (directory in writable or _within(directory, _OPEN)):
                yield risk(rules.SEARCH_PATH, Place(path, inside="ENV"), f"{name} has {part[:200]}, open to all")


def _within(directory: str, above: Collection[str]) -> bool:
    return any(directory == each or directory.startswith(f"{each}/") for each in above)


def _in_text(path: str, text: str, place: Place) -> Iterator[Risk]:
    only = TOKENS if _LIBRARIES.match(path) else None
    yield from in_lines(text, place.path, 1, inside=place.inside, only=only)
    if path == "etc/ld.so.preload" and text.strip():
        yield risk(rules.LOADER, place, "it loads a library into every program")
    if _ENVIRONMENTS.fullmatch(path):
        for line, name in loaders(text):
            yield risk(rules.LOADER, Place(place.path, line, place.inside), f"{name} is set")
