"""Who logged in with a browser: a viewer made of a name and groups, and kept in the browser's signed cookie."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from piolet.core.settings import WebSettings
from piolet.watch import Viewer


def viewer(settings: WebSettings, user: str, groups: Iterable[str]) -> Viewer:
    """Return `user` as a viewer, an operator if the settings name the user or one of the groups.

    A group is a project: sites name the groups of their file systems and identity providers as Slurm's accounts.
    """
    projects = frozenset(groups)
    names = {user, *(f"@{group}" for group in projects)}
    return Viewer(user, projects, operator=not names.isdisjoint(settings.operators))


def system_groups(user: str) -> tuple[str, ...]:
    """Return the groups of a user of this machine; () for a name that it does not know."""
    try:
        found = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return ()
    return tuple(grp.getgrgid(gid).gr_name for gid in found if _has_name(gid))


def remember(request: Request, who: Viewer) -> Response:
    """Log `who` in and return to where the visitor came from."""
    target = str(request.session.get("next") or "/")
    request.session.clear()
    request.session.update(user=who.user, groups=sorted(who.projects))
    return RedirectResponse(target, status_code=303)


def remembered(request: Request, settings: WebSettings) -> Viewer | None:
    """Return who logged in with this browser before."""
    user = request.session.get("user")
    return viewer(settings, str(user), request.session.get("groups", ())) if user else None


def _has_name(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except KeyError:
        return False
    return True
