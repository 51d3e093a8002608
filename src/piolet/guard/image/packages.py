"""The packages of an image, from the databases of dpkg, apk and rpm, Python's dist-info and conda-meta. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packageurl import PackageURL
from packaging.utils import canonicalize_name

from piolet.tools import rpmdb

_DPKG = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/]+)")
_DPKG_LIST = re.compile(r"var/lib/dpkg/info/[^/]+\.list")
_APK = re.compile(r"(?:usr/)?lib/apk/db/installed")
_PYTHON = re.compile(r".*\.(?:dist-info/METADATA|egg-info(?:/PKG-INFO)?)")
_CONDA = re.compile(r"(?:.*/)?conda-meta/[^/]+\.json")
_RPM = re.compile(r"(?:var/lib|usr/lib/sysimage)/rpm/rpmdb\.sqlite")
_RPM_UNREAD = re.compile(r"(?:var/lib|usr/lib/sysimage)/rpm/(?:rpmdb\.sqlite-wal|Packages(?:\.db)?)")
_SOURCE_RPM = re.compile(r"(?P<name>.+)-(?P<version>[^-]+-[^-]+)\.(?:no)?src\.rpm")
_RELEASE = re.compile(r"(?:etc|usr/lib)/os-release")
_NOTED = (_DPKG, _DPKG_LIST, _APK, _RPM, _PYTHON, _CONDA, _RELEASE)


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """A package: its kind as in package URLs (deb, apk, rpm, pypi, conda); advisories may name it by its source."""

    kind: str
    name: str
    version: str
    origin: str = ""
    origin_version: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """A distribution and its release, as os-release(5) has them; empty if it is not said."""

    name: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The packages of an image, and the files of which nothing could be told."""

    release: Release
    packages: tuple[Package, ...]
    unread: tuple[str, ...]


def is_noted(path: str) -> bool:
    """Return whether the text at `path` tells of packages."""
    return any(pattern.fullmatch(path) for pattern in _NOTED)


def is_rpm(path: str) -> bool:
    """Return whether this is a database of rpm that can be read."""
    return bool(_RPM.fullmatch(path))


def is_unread_rpm(path: str) -> bool:
    """Return whether this holds packages of rpm in a form that is not read: Berkeley DB, ndb, a journal not merged."""
    return bool(_RPM_UNREAD.fullmatch(path))


def text_of_rpm(content: bytes, path: str) -> str:
    """Return the packages of a database of rpm as text, a line each; ParseError if it is none."""
    rows = rpmdb.packages(content, path)
    return "\n".join(f"{each.name}\t{each.version}\t{each.architecture}\t{each.source}" for each in rows)


def inventory(texts: Mapping[str, str]) -> Inventory:
    """Return the packages that the noted texts of an image tell of, by their paths."""
    owned = {path for name, text in texts.items() for path in _owned(name, text)}
    found: set[Package] = set()
    unread = []
    for path, text in texts.items():
        try:
            found.update(_packages(path, text) if path not in owned else ())
        except (KeyError, RecursionError, TypeError, ValueError):
            unread.append(path)
    releases = [_release(text) for path, text in texts.items() if _RELEASE.fullmatch(path)]
    return Inventory(releases[0] if releases else Release(), tuple(sorted(found)), tuple(sorted(unread)))


def purl(package: Package, release: Release) -> str:
    """Return the package URL."""
    distribution = package.kind in {"deb", "apk", "rpm"}
    space = release.name if distribution else None
    told = {"arch": package.architecture, "distro": f"{release.name}-{release.version}" if distribution else ""}
    return PackageURL(package.kind, space, package.name, package.version, told).to_string()


def sbom(found: Inventory, image: str) -> dict[str, Any]:
    """Return the packages as a CycloneDX 1.6 document; the same image gives the same one."""
    urls = {purl(each, found.release): each for each in found.packages}
    components = [
        {"type": "library", "bom-ref": url, "name": each.name, "version": each.version, "purl": url}
        for url, each in sorted(urls.items())
    ]
    if found.release.name:  # by which scanners know whose advisories count
        told = {"name": found.release.name, "version": found.release.version}
        components.append({"type": "operating-system", "bom-ref": "operating-system", **told})
    about = {"component": {"type": "container", "bom-ref": "image", "name": image}}
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": about, "components": components}


def _packages(path: str, text: str) -> Iterator[Package]:
    if _DPKG.fullmatch(path):
        yield from (_deb(each) for each in _paragraphs(text, ": ") if _is_installed(each))
    elif _APK.fullmatch(path):
        for each in _paragraphs(text, ":"):
            yield Package("apk", each["P"], each["V"], each.get("o", each["P"]), each["V"], each.get("A", ""))
    elif _RPM.fullmatch(path):
        yield from (_rpm(*line.split("\t")) for line in text.splitlines())
    elif _PYTHON.fullmatch(path):
        told = next(_paragraphs(text, ": "))
        yield Package("pypi", canonicalize_name(told["Name"]), told["Version"])
    elif _CONDA.fullmatch(path):
        told = json.loads(text)
        yield Package("conda", str(told["name"]), str(told["version"]))


def _is_installed(paragraph: Mapping[str, str]) -> bool:
    return paragraph.get("Status", "install ok installed").endswith(" installed")


def _deb(told: Mapping[str, str]) -> Package:
    """Return a package of dpkg; `Source: NAME (VERSION)` is there where it differs from the package's own."""
    source, _, version = told.get("Source", told["Package"]).partition(" (")
    names = (told["Package"], told["Version"], source, version.rstrip(")") or told["Version"])
    return Package("deb", *names, told.get("Architecture", ""))


def _rpm(name: str, version: str, architecture: str, source: str) -> Package:
    """Return a package of rpm; its source is ``NAME-VERSION-RELEASE.src.rpm``, and has its epoch."""
    match = _SOURCE_RPM.fullmatch(source)
    epoch = f"{version.partition(':')[0]}:" if ":" in version else ""
    origin = (match["name"], f"{epoch}{match['version']}") if match else (name, version)
    return Package("rpm", name, version, *origin, architecture)


def _owned(path: str, text: str) -> Iterator[str]:
    """Yield the files of Python packages that a distribution's package put there, and that count as that one."""
    if _DPKG_LIST.fullmatch(path):
        yield from (line.lstrip("/") for line in text.splitlines() if _PYTHON.fullmatch(line))
    elif _APK.fullmatch(path):
        directory = ""
        for line in text.splitlines():
            directory = line[2:] if line.startswith("F:") else directory
            if line.startswith("R:"):
                yield f"{directory}/{line[2:]}"


def _paragraphs(text: str, separator: str) -> Iterator[dict[str, str]]:
    """Yield fields by their names; lines that continue another are left out."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = (line.partition(separator) for line in paragraph.splitlines() if not line.startswith((" ", "\t")))
        yield {name: value.strip() for name, _, value in lines}


def _release(text: str) -> Release:
    told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return Release(told.get("ID", "").strip("\"'"), told.get("VERSION_ID", "").strip("\"'"))
