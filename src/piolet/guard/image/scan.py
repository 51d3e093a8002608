"""Scan an image: its files in every layer, its configuration, and the packages that its layers make together."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from piolet.core.errors import ParseError, PioletError, ToolError, ToolTimeout
from piolet.core.files import write_json
from piolet.core.run import Runner, SystemRunner
from piolet.guard import rules
from piolet.guard.finding import Place, Risk, Scan, risk
from piolet.guard.image import contents, packages, vulnerabilities
from piolet.guard.image.entries import UNREADABLE, Bomb, Entry, Image, opened
from piolet.guard.image.packages import Inventory
from piolet.guard.policy import ImageLimits
from piolet.tools import scanners
from piolet.tools.scanners import Found, Scanner

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MAX_DATABASE_BYTES = 512 << 20


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
    path: Path,
    limits: ImageLimits,
    advisories: Path | None = None,
    runner: Runner | None = None,
    asked: Sequence[Scanner] = (),
) -> tuple[Scan, Inventory]:
    """Scan the image at `path`; `advisories` is a directory of OSV files. Returns the packages beside the risks.

    `asked` are scanners of vulnerabilities that are asked about its packages as well.

    Raises:
        UsageError, ParseError, StorageError, ToolMissing, ToolError: it cannot be read; see `entries.opened`.
        ConfigError: an advisory cannot be read.
    """
    seen, runner = _Seen(str(path), limits), runner or SystemRunner()
    with opened(path, limits, runner) as image:
        _look(image, seen)
    found = packages.inventory(seen.texts)
    answers = {each.name: _answer(each, found, path.name, runner) for each in asked if found.packages}
    seen.risks.update(_of_packages(found, seen.path))
    seen.risks.update(_of_scanners(answers, seen.path))
    if advisories or all(isinstance(each, PioletError) for each in answers.values()):
        seen.risks.update(_of_advisories(found, advisories, seen.path))
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
    if packages.is_unread_rpm(entry.path) and entry.size_bytes:
        seen.risks.add(risk(rules.PACKAGES, place, "a database of rpm in this form is not read"))
    try:
        content = _of_rpm(entry) if packages.is_rpm(entry.path) else contents.content_of(entry)
    except ParseError as error:
        seen.risks.add(risk(rules.PACKAGES, place, error.what))
        return None
    except PermissionError as error:
        seen.risks.add(risk(rules.UNREADABLE, place, str(error.strerror)))
        return None
    if content is None and entry.size_bytes and stat.S_ISREG(entry.mode) and packages.is_noted(entry.path):
        seen.risks.add(risk(rules.PACKAGES, place, "it is not the text that its name says"))
    seen.risks.update(contents.risks_of(entry, content, place))
    return content


def _of_rpm(entry: Entry) -> bytes:
    """Return a database of rpm as text; ParseError if it cannot be read."""
    if entry.size_bytes > _MAX_DATABASE_BYTES:
        raise ParseError(f"a database of {entry.size_bytes} bytes", source=entry.path)
    return packages.text_of_rpm(entry.read(_MAX_DATABASE_BYTES), entry.path).encode()


def _is_hidden(path: str, hidden: set[str]) -> bool:
    """Return whether a path, or a directory above it, was taken away; `DIR/` hides only what is below DIR."""
    if path in hidden or "/" in hidden:
        return True
    return any(path[:at] in hidden or path[: at + 1] in hidden for at, each in enumerate(path) if each == "/")


def _of_packages(found: Inventory, path: str) -> Iterator[Risk]:
    for each in found.unread:
        yield risk(rules.PACKAGES, Place(path, inside=each), "it cannot be read as what its name says")
    if not found.packages:
        yield risk(rules.PACKAGES, Place(path), "no database of packages is in it")


def _of_advisories(found: Inventory, advisories: Path | None, path: str) -> Iterator[Risk]:
    if not advisories:
        yield risk(rules.VULNERABILITIES, Place(path), f"no advisories for {len(found.packages)} packages")
        return
    matches = vulnerabilities.match(found, advisories)
    for place in sorted(matches.missing):
        yield risk(rules.VULNERABILITIES, Place(path), f"no advisory is there for {place}")
    for package, reason in matches.undecided:
        yield risk(rules.VULNERABILITIES, Place(path, inside=package), reason)
    for hit in matches.vulnerable:
        yield _vulnerable(path, hit.package, hit.advisory, hit.fixed)


def _answer(scanner: Scanner, found: Inventory, name: str, runner: Runner) -> frozenset[Found] | PioletError:
    """Return what a scanner finds, or why it does not answer."""
    with tempfile.TemporaryDirectory() as directory:
        sbom = Path(directory) / "packages.cdx.json"
        write_json(sbom, packages.sbom(found, name))
        try:
            return scanners.ask(scanner, sbom, runner)
        except (ToolError, ToolTimeout, ParseError) as error:
            return error


def _of_scanners(answers: Mapping[str, frozenset[Found] | PioletError], path: str) -> Iterator[Risk]:
    for name, answer in answers.items():
        if isinstance(answer, PioletError):
            yield risk(rules.VULNERABILITIES, Place(path, inside=name), answer.what[:200])
        else:
            for hit in answer:
                yield _vulnerable(path, f"{hit.package} {hit.version}", hit.advisory, hit.fixed)


def _vulnerable(path: str, package: str, advisory: str, fixed: str) -> Risk:
    reason = f"{advisory}, fixed in {fixed}" if fixed else f"{advisory}, no fix is known"
    return risk(rules.FIXED if fixed else rules.UNFIXED, Place(path, inside=f"{package} {advisory}"), reason)
