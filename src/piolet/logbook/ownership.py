"""Whose files a logbook holds. Its user may put anything there, also a link to another's file.

Who reads for others with more rights than they have (the web) must open no file that is not the logbook's own. The
check is of the moment: a site closes the rest of the race with a mount option (nosymfollow), or gives that service
no more rights than its viewers have.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from piolet.logbook.layout import Logbook

_ROOT = 0


def owner(logbook: Logbook) -> int | None:
    """Return the user id that owns job.json, None if there is no such regular file."""
    return _owner_of_file(logbook.job)


def own_files(logbook: Logbook, paths: Iterable[Path], user_id: int) -> list[Path]:
    """Return those of `paths` that are regular files of `user_id` or root, with no link on the way from `logbook`."""
    directories: dict[Path, bool] = {}
    found = []
    for path in paths:
        if path.parent not in directories:
            directories[path.parent] = _linkless(logbook.path, path.parent)
        if directories[path.parent] and _owner_of_file(path) in {user_id, _ROOT}:
            found.append(path)
    return found


def _owner_of_file(path: Path) -> int | None:
    """Return the owner of a regular file, None for anything else."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_uid if stat.S_ISREG(found.st_mode) else None


def _linkless(root: Path, directory: Path) -> bool:
    """Return whether no component of `directory` below `root` is a link."""
    try:
        return directory == root or directory.resolve() == root.resolve() / directory.relative_to(root)
    except (OSError, ValueError):
        return False
