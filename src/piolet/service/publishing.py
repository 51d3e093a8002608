"""Services in the GitOps repository: each is the directory projects/PROJECT/SERVICE/, and nothing else is touched.

A deployment states all of a service, so whoever comes second in a race writes it again onto what the first left, and
pushes that. Nothing is forced, and nothing here talks to the cluster: Argo CD reads the repository.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from piolet.core.errors import PioletError, Refused, UsageError, storage_errors
from piolet.core.files import write_text
from piolet.core.text import did_you_mean, plural
from piolet.service.checking import admit
from piolet.service.platform import GitOps, Platform
from piolet.service.reading import ServiceFile
from piolet.service.render import rendered
from piolet.tools import git

TRIES = 40
"""Pushes before giving up; fifty deployments at once on one server all come through with fewer."""
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Change:
    """All that the directory of one service shall hold; without files, the service goes."""

    project: str
    service: str
    files: Mapping[str, str]
    message: str

    @property
    def directory(self) -> Path:
        """The service's directory in the repository."""
        return Path("projects", self.project, self.service)


@dataclass(frozen=True, slots=True)
class Published:
    """What was pushed after how many tries; no commit if the repository had it all already."""

    commit: str
    branch: str
    patch: str
    tries: int


def deployment(file: ServiceFile, platform: Platform, today: date) -> Change:
    """Return the change that deploys the service.

    Raises:
        Refused: see `checking.admit`.
    """
    admit(file, platform, today)
    service = file.service
    files = rendered(service, platform, file.contents).files() | {"service.toml": file.source}
    lease = f"until {service.expires}" if service.expires else "without an end"
    message = (
        f"Deploy {service.project}/{service.name}\n\nImage: {service.image}\n"
        f"Runs on {service.run_on} nodes, at most {plural(service.most_replicas, 'replica')}, {lease}; "
        f"reached by: {service.expose}.\nRendered by `piolet service deploy` from the service.toml beside it.\n"
    )
    return Change(service.project, service.name, files, message)


def named(text: str) -> tuple[str, str]:
    """Return the project and the service of PROJECT/SERVICE; names are checked, since they become a path."""
    found = re.fullmatch(r"([a-z][a-z0-9-]*)/([a-z][a-z0-9-]*)", text, re.ASCII)
    if not found:
        raise UsageError(f'"{text}" names no service', remedy="write PROJECT/SERVICE, such as climate/mlflow")
    return found[1], found[2]


def removal(project: str, service: str) -> Change:
    """Return the change that takes a service away."""
    message = f"Remove {project}/{service}\n\nBy `piolet service rm`. What it ran with is in the history.\n"
    return Change(project, service, {}, message)


def preview(change: Change, gitops: GitOps, branch: str = "") -> str:
    """Return what `publish` would commit, as a patch; see there."""
    with cloned(gitops, branch) as clone:
        return _written(clone, change)


def publish(
    change: Change,
    gitops: GitOps,
    branch: str = "",
    *,
    tries: int = TRIES,
    sleep: Callable[[float], None] = time.sleep,
) -> Published:
    """Commit the change and push it to `branch`, by default the one that Argo CD reads.

    Raises:
        Refused: the server does not let the user push there.
        UsageError: the service to remove is not there; git does not know the user's name.
        PioletError: the repository cannot be reached, or others were faster `tries` times.
    """
    return push(gitops, branch, lambda clone: _written(clone, change), change.message, tries=tries, sleep=sleep)


def push(
    gitops: GitOps,
    branch: str,
    write: Callable[[git.Clone], str],
    message: str,
    *,
    tries: int = TRIES,
    sleep: Callable[[float], None] = time.sleep,
) -> Published:
    """Commit what `write` changes in a clone, which returns it as a patch, and push it; see `publish` for errors.

    Whoever was faster has its commits below: `write` is called again on them.
    """
    target = branch or gitops.branch
    with cloned(gitops, target) as clone:
        for tried in range(1, tries + 1):
            patch = write(clone)
            if not patch:
                return Published("", target, "", tried)
            commit = clone.commit(message)
            if _pushed(clone, target):
                return Published(commit, target, patch, tried)
            sleep(random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**tried)))  # noqa: S311 - no secret
            clone.catch_up(target)
    raise PioletError(
        f"others pushed faster, {tries} times", where=f"{gitops.url}, branch {target}", remedy="try again later"
    )


@contextmanager
def cloned(gitops: GitOps, branch: str, *, history: bool = False) -> Iterator[git.Clone]:
    """Yield a clone of `branch`, or of the branch that it will start from if there is none of this name yet."""
    start = gitops.branch
    if branch and branch != start:
        git.check_branch(branch)
        start = branch if git.has_branch(gitops.url, branch) else start
    with TemporaryDirectory(prefix="piolet-service-") as place:
        yield git.clone(gitops.url, start, Path(place) / "repository", history=history)


def _written(clone: git.Clone, change: Change) -> str:
    """Make the service's directory hold the change's files and no others; return what differs, as a patch."""
    place = clone.directory / change.directory
    if not change.files and not place.is_dir():
        raise _absent(clone, change)
    with storage_errors(place, "write"):
        if place.is_dir():
            shutil.rmtree(place)
    for name, text in change.files.items():
        write_text(place / name, text)
    return clone.staged(change.directory)


def _absent(clone: git.Clone, change: Change) -> UsageError:
    projects = clone.directory / "projects"
    known = [path.parent.relative_to(projects).as_posix() for path in projects.glob("*/*/service.toml")]
    name = f"{change.project}/{change.service}"
    return UsageError(f"there is no service {name}", where=clone.url, remedy=did_you_mean(name, known))


def _pushed(clone: git.Clone, branch: str) -> bool:
    outcome, said = clone.push(branch)
    if outcome is git.Push.REFUSED:
        raise Refused(
            f"the server refused the push: {said}",
            where=f"{clone.url}, branch {branch}",
            remedy="if the branch is protected, push another for a merge request: --branch NAME",
        )
    return outcome is git.Push.DONE
