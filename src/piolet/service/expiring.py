"""Leases that are over: the service is scaled to zero by a commit. Its volumes stay, and `renew` wakes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

from piolet.core.errors import storage_errors
from piolet.core.files import write_text
from piolet.service import publishing
from piolet.service.listing import Deployed, services
from piolet.service.platform import GitOps
from piolet.service.publishing import Published
from piolet.service.render.yamltext import dump
from piolet.tools import git

_FILES = {"deployment.yaml": "replicas", "statefulset.yaml": "replicas", "cronjob.yaml": "suspend"}
_STOPPED: dict[str, Any] = {"replicas": 0, "suspend": True}


@dataclass(frozen=True, slots=True)
class Expired:
    """What was stopped, what will be within the days of notice, and the commit; none if nothing was left to stop."""

    over: tuple[Deployed, ...]
    soon: tuple[Deployed, ...]
    published: Published


def expire(gitops: GitOps, today: date, notice_days: int, *, branch: str = "", dry_run: bool = False) -> Expired:
    """Stop every service of the repository whose lease is over, in one commit; with `dry_run`, only tell the patch.

    See `publishing.publish` for errors.
    """
    with publishing.cloned(gitops, branch) as clone:
        patch = _write(clone, today)
        seen = services(clone.directory / "projects")
    over = [each for each in seen if each.expires and each.expires < today]
    last = today + timedelta(days=notice_days)
    soon = [each for each in seen if each.expires and today <= each.expires <= last]
    done = Published("", "", patch, 0)
    if patch and not dry_run:
        done = publishing.push(gitops, branch, lambda clone: _write(clone, today), _message(over))
    return Expired(tuple(over), tuple(soon), done)


def _write(clone: git.Clone, today: date) -> str:
    projects = clone.directory / "projects"
    for each in services(projects):
        if each.expires and each.expires < today:
            _stop(projects / each.project / each.service)
    return clone.staged(Path("projects")) if projects.is_dir() else ""


def _message(over: list[Deployed]) -> str:
    names = "\n".join(f"{each.project}/{each.service}, since {each.expires}" for each in over)
    return f"Stop services whose lease is over\n\n{names}\n\nBy `piolet service expire`; `renew` wakes one.\n"


def _stop(place: Path) -> None:
    """Write no replicas into the manifests, and take away what would add some."""
    for name, key in _FILES.items():
        path = place / name
        if path.is_file():
            with storage_errors(path, "read"):
                objects = list(yaml.safe_load_all(path.read_text("utf-8")))
            for each in objects:
                each["spec"] = {key: _STOPPED[key]} | {k: v for k, v in each["spec"].items() if k != key}
            write_text(path, dump(objects))
    with storage_errors(place, "stop the service"):
        (place / "horizontalpodautoscaler.yaml").unlink(missing_ok=True)
