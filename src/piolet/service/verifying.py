"""Verifying the manifests of a repository, whoever wrote them: DIRECTORY/PROJECT/.../*.yaml.

What Argo CD would apply is read as it reads it: files that end in .yaml, .yml or .json. What cannot be read is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from piolet.core.errors import storage_errors
from piolet.core.text import did_you_mean
from piolet.service.checking import Breach
from piolet.service.platform import Platform
from piolet.service.policies import violations

SUFFIXES = frozenset({".json", ".yaml", ".yml"})
_UNREADABLE = "what cannot be read cannot be judged, and must not reach the cluster"


def verified(directory: Path, platform: Platform, today: date) -> tuple[int, list[Breach]]:
    """Return how many objects there are below `directory`, and every policy that one of them breaks.

    Raises:
        StorageError: a file cannot be read.
    """
    count = 0
    found: list[Breach] = []
    for path in sorted(path for path in directory.rglob("*") if path.suffix in SUFFIXES):
        project = path.relative_to(directory).parts[0]
        for each in _documents(path):
            count += 1
            found += [each] if isinstance(each, Breach) else _breaches(path, each, project, platform, today)
    return count, found


def _documents(path: Path) -> Iterator[dict[str, Any] | Breach]:
    """Yield the objects of a file, and a breach for what is none."""
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        documents = [each for each in yaml.safe_load_all(content) if each is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())[:200]
        yield Breach("readable", "", str(path), f"not YAML: {what}", _UNREADABLE, "correct the file")
        return
    for each in documents:
        yield (
            each
            if _is_object(each)
            else Breach(
                "readable",
                "",
                str(path),
                "not a Kubernetes object",
                _UNREADABLE,
                "give it kind and metadata, or remove it",
            )
        )


def _is_object(each: object) -> bool:
    return isinstance(each, dict) and isinstance(each.get("kind"), str) and isinstance(each.get("metadata"), dict)


def _breaches(path: Path, each: dict[str, Any], project: str, platform: Platform, today: date) -> Iterator[Breach]:
    if project not in platform.projects:
        fix = did_you_mean(project, platform.projects)
        what = f'the platform has no project "{project}"'
        yield Breach("project", each["kind"], str(path), what, "its objects would belong to nobody", fix)
        return
    for name, broken in {found.policy.id: found for found in violations(each, project, platform, today)}.items():
        subject = f"{each['kind']} {each['metadata'].get('name', '')}"
        yield Breach(name, subject, str(path), broken.policy.title, broken.policy.why, broken.fix)
