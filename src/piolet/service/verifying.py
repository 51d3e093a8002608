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


class _Loader(yaml.SafeLoader):
    """Reads YAML as Kubernetes does: a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if not tag.endswith(":timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


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
        documents = [_as_json(each) for each in yaml.load_all(content, _Loader) if each is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())[:200]
        yield Breach("readable", "", str(path), f"not YAML: {what}", _UNREADABLE, "correct the file")
        return
    for each in documents:
        if _is_object(each):
            yield each
        else:
            what, fix = "not a Kubernetes object", "give it kind and metadata, or remove it"
            yield Breach("readable", "", str(path), what, _UNREADABLE, fix)


def _as_json(value: Any) -> Any:  # noqa: ANN401 - as in YAML
    """Return the value as the cluster takes it: names are text, and what is null is not there.

    Raises:
        ValueError: JSON has no such value.
    """
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"JSON has no {type(value).__name__}")


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
