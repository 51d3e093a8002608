"""Scanners of vulnerabilities that a site may have: trivy and grype, each asked about a CycloneDX document.

Written to their documented JSON (trivy 0.5x, grype 0.8x); neither was ever run here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core.errors import ParseError
from piolet.core.run import Runner

_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A vulnerability of a package; `fixed` is a version without it, empty if none is known."""

    package: str
    version: str
    advisory: str
    fixed: str = ""


@dataclass(frozen=True, slots=True)
class Scanner:
    """A scanner by the name of its program."""

    name: str
    argv: Callable[[Path], list[str]]
    found: Callable[[dict[str, Any]], Iterator[Found]]


def _of_trivy(answer: dict[str, Any]) -> Iterator[Found]:
    for result in answer["Results"]:
        for each in result.get("Vulnerabilities") or ():
            fixed = each.get("FixedVersion", "").partition(",")[0].strip()
            yield Found(each["PkgName"], each["InstalledVersion"], each["VulnerabilityID"], fixed)


def _of_grype(answer: dict[str, Any]) -> Iterator[Found]:
    for match in answer["matches"]:
        told, package = match["vulnerability"], match["artifact"]
        fixes = (told.get("fix") or {}).get("versions") or [""]
        yield Found(package["name"], package["version"], told["id"], fixes[0])


SCANNERS = (
    Scanner("trivy", lambda sbom: ["trivy", "sbom", "--quiet", "--format", "json", str(sbom)], _of_trivy),
    Scanner("grype", lambda sbom: ["grype", f"sbom:{sbom}", "--quiet", "--output", "json"], _of_grype),
)


def present() -> tuple[Scanner, ...]:
    """Return those that are on PATH."""
    return tuple(each for each in SCANNERS if shutil.which(each.name))


def ask(scanner: Scanner, sbom: Path, runner: Runner) -> frozenset[Found]:
    """Return what a scanner finds for the packages of a CycloneDX file.

    Raises:
        ToolError, ToolTimeout: it failed; often it has no database.
        ParseError: its answer has another form.
    """
    return parse(scanner, runner.run(scanner.argv(sbom), timeout=_TIMEOUT_S).stdout)


def parse(scanner: Scanner, text: str) -> frozenset[Found]:
    """Parse an answer; one without the list of results is none, so that silence is not taken for health."""
    try:
        answer: Mapping[str, Any] = json.loads(text)
        return frozenset(scanner.found(dict(answer)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ParseError(f"not the answer of {scanner.name}: {error}", source=scanner.name, text=text) from error
