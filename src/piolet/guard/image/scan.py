"""Scan an image: its files in every layer, its configuration, and the packages that its layers make together."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from piolet.core.run import Runner, SystemRunner
from piolet.guard import rules
from piolet.guard.finding import Place, Risk, Scan, risk
from piolet.guard.image import contents, packages, vulnerabilities
from piolet.guard.image.entries import UNREADABLE, Bomb, Entry, Image, opened
from piolet.guard.image.packages import Inventory
from piolet.guard.policy import ImageLimits

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(slots=True)
class _Seen:
    """What is known of the tree that the layers so far make; risks are of all layers, also of what is gone."""

    path: str
    limits: ImageLimits
    files: int = 0
    size_bytes: int = 0
    risks: set[Risk] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)


def scan_image(
    path: Path, limits: ImageLimits, advisories: Path | None = None, runner: Runner | None = None
) -> tuple[Scan, Inventory]:
    """Scan the image at `path`; `advisories` is a directory of OSV files. Returns the packages beside the risks.

    Raises:
        UsageError, ParseError, StorageError, ToolMissing, ToolError: it cannot be read; see `entries.opened`.
        ConfigError: an advisory cannot be read.
    """
    seen = _Seen(str(path), limits)
    with opened(path, limits, runner or SystemRunner()) as image:
        _look(image, seen)
    found = packages.inventory(seen.texts)
    seen.risks.update(_of_packages(found, advisories, seen.path))
    return Scan("image", seen.files, seen.size_bytes, tuple(sorted(seen.risks))), found


def _look(image: Image, seen: _Seen) -> None:
    for number, entries in enumerate(image.layers, 1):
        named = f"layer {number}" if len(image.layers) > 1 else ""
        try:
            _add_layer(entries(), named, seen)
        except Bomb as error:
            seen.risks.add(risk(rules.IMAGE_LIMITS, Place(seen.path, inside=named), str(error)))
        except UNREADABLE as error:
            reason = f"{type(error).__name__}: {str(error)[:120]}"
            seen.risks.add(risk(rules.IMAGE_BROKEN, Place(seen.path, inside=named), reason))
    writable = {path for path, mode in seen.modes.items() if mode & stat.S_IWOTH}
    seen.risks.update(contents.risks_of_config(image.env, image.history, seen.path))
    seen.risks.update(contents.risks_of_paths(image.env, writable, seen.path))


def _add_layer(entries: Iterable[Entry], layer: str, seen: _Seen) -> None:
    """Look at each entry, then take out what the layer hides of those below, and put its own in."""
    texts: dict[str, str] = {}
    modes: dict[str, int] = {}
    hidden: set[str] = set()
    for entry in entries:
        above, _, name = entry.path.rpartition("/")
        if name.startswith(_WHITEOUT):
            hidden.add(above + "/" if name == _OPAQUE else f"{above}/{name.removeprefix(_WHITEOUT)}".lstrip("/"))
            continue
        _count(entry, seen)
        content = _examined(entry, layer, seen)
        hidden.update({entry.path} & seen.texts.keys())  # it is another file now
        if content and packages.is_noted(entry.path):
            texts[entry.path] = content.decode("utf-8", "replace")
        if stat.S_ISDIR(entry.mode):
            modes[entry.path] = entry.mode
    seen.texts = {path: text for path, text in seen.texts.items() if not _is_hidden(path, hidden)} | texts
    seen.modes = {path: mode for path, mode in seen.modes.items() if not _is_hidden(path, hidden)} | modes


def _count(entry: Entry, seen: _Seen) -> None:
    seen.files += 1
    seen.size_bytes += entry.size_bytes if stat.S_ISREG(entry.mode) else 0
    if seen.files > seen.limits.max_files:
        raise Bomb(f"over {seen.limits.max_files} files")


def _examined(entry: Entry, layer: str, seen: _Seen) -> bytes | None:
    """Add the risks of an entry, and return its text."""
    place = Place(seen.path, inside=f"{entry.path[:400]} ({layer})" if layer else entry.path[:400])
    if entry.path.startswith("../"):
        seen.risks.add(risk(rules.IMAGE_BROKEN, place, "a path outside of the image"))
    if packages.is_rpm(entry.path):
        seen.risks.add(risk(rules.PACKAGES, place, "packages of rpm are not read"))
    try:
        content = contents.content_of(entry)
    except PermissionError as error:
        seen.risks.add(risk(rules.UNREADABLE, place, str(error.strerror)))
        return None
    if content is None and entry.size_bytes and stat.S_ISREG(entry.mode) and packages.is_noted(entry.path):
        seen.risks.add(risk(rules.PACKAGES, place, "it is not the text that its name says"))
    seen.risks.update(contents.risks_of(entry, content, place))
    return content


def _is_hidden(path: str, hidden: set[str]) -> bool:
    """Return whether a path, or a directory above it, was taken away; `DIR/` hides only what is below DIR."""
    if path in hidden or "/" in hidden:
        return True
    return any(path[:at] in hidden or path[: at + 1] in hidden for at, each in enumerate(path) if each == "/")


def _of_packages(found: Inventory, advisories: Path | None, path: str) -> Iterator[Risk]:
    for each in found.unread:
        yield risk(rules.PACKAGES, Place(path, inside=each), "it cannot be read as what its name says")
    if not found.packages:
        yield risk(rules.PACKAGES, Place(path), "no database of packages is in it")
    if not advisories:
        yield risk(rules.VULNERABILITIES, Place(path), f"no advisories for {len(found.packages)} packages")
        return
    matches = vulnerabilities.match(found, advisories)
    for place in sorted(matches.missing):
        yield risk(rules.VULNERABILITIES, Place(path), f"no advisory is there for {place}")
    for package, reason in matches.undecided:
        yield risk(rules.VULNERABILITIES, Place(path, inside=package), reason)
    for hit in matches.vulnerable:
        rule = rules.FIXED if hit.fixed else rules.UNFIXED
        reason = f"{hit.advisory}, fixed in {hit.fixed}" if hit.fixed else f"{hit.advisory}, no fix is known"
        yield risk(rule, Place(path, inside=f"{hit.package} {hit.advisory}"), reason)
