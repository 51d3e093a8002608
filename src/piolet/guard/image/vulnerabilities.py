"""Vulnerabilities of packages, by a directory of advisories in the OSV schema (https://ossf.github.io/osv-schema/)."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version
from univers.versions import AlpineLinuxVersion, DebianVersion, RpmVersion

from piolet.core.errors import ConfigError, ParseError
from piolet.core.files import read_json
from piolet.guard.image.packages import Inventory, Package, Release

_ORDERS: Mapping[str, Callable[[str], Any]] = {
    "Debian": DebianVersion,
    "Ubuntu": DebianVersion,
    "Alpine": AlpineLinuxVersion,
    "PyPI": Version,
    "AlmaLinux": RpmVersion,
    "Rocky Linux": RpmVersion,
    "Red Hat": RpmVersion,
}
"""The order of versions of each ecosystem; each raises ValueError for what is no version of it.

Only < is asked for: >= of Alpine's in univers 32 compares the texts.
"""
_DISTRIBUTIONS = {
    "debian": "Debian",
    "ubuntu": "Ubuntu",
    "alpine": "Alpine",
    "almalinux": "AlmaLinux",
    "rocky": "Rocky Linux",
    "rhel": "Red Hat",
}
_RED_HAT = re.compile(r"Red Hat:enterprise_linux:(\d+)\b.*")
"""Red Hat's ecosystems go on with minor releases and repositories: ``Red Hat:enterprise_linux:9::appstream``."""
_FIRST = "0"
_REMEDY = "fetch the advisories again, or take the file out"


@dataclass(frozen=True, slots=True, order=True)
class Vulnerable:
    """A package (of a distribution its source: name and version); `fixed` is the first version without it, if any."""

    package: str
    advisory: str
    fixed: str


@dataclass(slots=True)
class Matches:
    """What the advisories say, and for what they cannot: a package and the reason, or an ecosystem."""

    vulnerable: set[Vulnerable] = field(default_factory=set)
    undecided: set[tuple[str, str]] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)


def match(found: Inventory, directory: Path) -> Matches:
    """Match the packages against every advisory below `directory`.

    Raises:
        StorageError, ConfigError: the directory or an advisory cannot be read.
    """
    wanted = _wanted(found)
    matches, known = Matches(), set()
    for path, advisory in _advisories(directory):
        try:
            for affected in advisory.get("affected") or ():
                place = _named(affected)
                known.add(place[0])
                for version in wanted.get(place, ()):
                    _decide(place, version, advisory["id"], affected, matches)
        except (AttributeError, KeyError, TypeError) as error:
            raise ConfigError("not an advisory of the OSV schema", path=path, remedy=_REMEDY) from error
    places = {ecosystem(each, found.release) or f"packages of {each.kind}" for each in found.packages}
    matches.missing = places - known
    return matches


def _wanted(found: Inventory) -> Mapping[tuple[str, str], set[str]]:
    """Return the versions that are there, by ecosystem and by the name that advisories have for the package."""
    wanted = defaultdict(set)
    for each in found.packages:
        if place := ecosystem(each, found.release):
            wanted[place, each.origin or each.name].add(each.origin_version or each.version)
            if each.kind == "rpm":  # Rocky's advisories name the source, those of AlmaLinux and Red Hat the package
                wanted[place, each.name].add(each.version)
    return wanted


def ecosystem(package: Package, release: Release) -> str:
    """Return the ecosystem of a package as advisories name it; empty if none does."""
    if package.kind == "pypi":
        return "PyPI"
    name = _DISTRIBUTIONS.get(release.name, "")
    if package.kind not in {"deb", "apk", "rpm"} or not name or not release.version:
        return ""
    if name == "Alpine":
        return f"Alpine:v{'.'.join(release.version.split('.')[:2])}"
    return f"{name}:{release.version.partition('.')[0] if package.kind == 'rpm' else release.version}"


def first_fix(version: str, events: Iterable[Mapping[str, str]], order: Callable[[str], Any]) -> str | None:
    """Return the first version that is no longer affected, empty if none is known; None if `version` is not affected.

    Raises:
        ValueError: a version is none of this ecosystem.
    """
    own, hit = order(version), False
    every = [(text, kind) for event in events for kind, text in event.items() if kind != "limit"]
    for text, kind in sorted(every, key=lambda each: (each[0] != _FIRST, _at(each[0], order))):
        if text == _FIRST or (order(text) < own if kind == "last_affected" else not own < order(text)):
            hit = kind == "introduced"
        elif hit and kind == "fixed":
            return text
    return "" if hit else None


def _at(text: str, order: Callable[[str], Any]) -> Any:  # noqa: ANN401 - a version of any ecosystem
    return None if text == _FIRST else order(text)


def _advisories(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    if not directory.is_dir():
        raise ConfigError("no such directory of advisories", path=directory, remedy="correct --osv or guard.osv")
    for above, names, files in os.walk(directory):
        names.sort()
        for name in sorted(files):
            if name.endswith(".json"):
                advisory = _read(path := Path(above, name))
                if not advisory.get("withdrawn"):
                    yield path, advisory


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except ParseError as error:
        raise ConfigError("not an advisory: it is no JSON", path=path, remedy=_REMEDY) from error
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        raise ConfigError("not an advisory of the OSV schema: it has no id", path=path, remedy=_REMEDY)
    return found


def _named(affected: Mapping[str, Any]) -> tuple[str, str]:
    """Return ecosystem and package; `Ubuntu:22.04:LTS` is Ubuntu:22.04, but `Ubuntu:Pro:...` is another."""
    package = affected.get("package") or {}  # the schema lets it out where only commits are affected
    place, name = package.get("ecosystem", ""), package.get("name", "")
    place = _RED_HAT.sub(r"Red Hat:\1", place.removesuffix(":LTS"))
    return place, canonicalize_name(name) if place == "PyPI" else name


def _decide(place: tuple[str, str], version: str, advisory: str, affected: Mapping[str, Any], matches: Matches) -> None:
    order, package = _ORDERS[place[0].partition(":")[0]], f"{place[1]} {version}"
    ranges = [each for each in affected.get("ranges") or () if each.get("type") in {"ECOSYSTEM", "SEMVER"}]
    try:
        fixes = [first_fix(version, each.get("events") or (), order) for each in ranges]
    except ValueError:
        matches.undecided.add((package, f"{advisory}: it names a version that cannot be compared with this one"))
        return
    hits = [fix for fix in fixes if fix is not None]
    if hits or version in (affected.get("versions") or ()):
        matches.vulnerable.add(Vulnerable(package, advisory, next(filter(None, hits), "")))
