"""What the commands of `piolet service` share: the file, the site's platform and its repository, the date."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.core import config
from piolet.core.errors import UsageError

if TYPE_CHECKING:
    from piolet.service.platform import GitOps, Platform

file_argument = click.argument("path", type=click.Path(path_type=Path), default=Path("service.toml"))


def today() -> date:
    """Return the date that leases are compared with."""
    return datetime.now(UTC).date()


def site_platform() -> Platform:
    """Read the platform that the setting `service.platform` names."""
    from piolet.service import platform

    return platform.of_site(config.load().settings)


def gitops_of(platform: Platform, repository: str | None) -> GitOps:
    """Return the platform's repository, with another address if one is given."""
    from piolet.service.platform import GitOps

    if repository:
        return GitOps(url=repository, branch=platform.gitops.branch if platform.gitops else "main")
    if platform.gitops is None:
        raise UsageError("the platform names no repository", remedy="add [gitops] to it, or say --repository URL")
    return platform.gitops
