"""Learning all that is to be known of a directory: the walk, the mount, the quota, the layouts of its largest files."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from piolet.core.errors import ParseError, ToolError, ToolMissing, ToolTimeout
from piolet.core.run import Runner
from piolet.data import site, walking
from piolet.data.advice import UNSTRIPED_BYTES, Facts
from piolet.data.scanning import Rules
from piolet.data.site import FileSystem
from piolet.data.tally import Tally
from piolet.tools import lustre, mountinfo, quota
from piolet.tools.lustre import Layout
from piolet.tools.mountinfo import Mount


def check(
    root: Path,
    table: Sequence[FileSystem],
    runner: Runner,
    *,
    cache: Path,
    resume: bool = False,
    workers: int | None = None,
    report: Callable[[Tally], None] = lambda _: None,
) -> Facts:
    """Count what is below `root` on its file system, and ask for its limits.

    Raises:
        UsageError: `root` is not a directory, or `resume` finds nothing to resume.
        StorageError: it cannot be read, or `cache` cannot be written.
    """
    root = Path(os.path.realpath(root))
    mount = mountinfo.holding(root, mountinfo.mounted())
    known = site.holding(str(root), table)
    directory = walking.state_directory([root], cache)
    rules = Rules(time.time(), known.purge_by if known else "access")
    walk = walking.resume([root], directory) if resume else walking.begin([root], rules, directory)
    tally = walking.finish(walk, workers=workers or walking.default_workers(), report=report)
    told, trouble = _quota(mount, runner)
    return Facts(root, mount, tally, known, told, trouble, _layouts(mount, tally, runner))


def _quota(mount: Mount, runner: Runner) -> tuple[quota.Quota | None, str]:
    """Return the quota of this user, or why it is not known."""
    try:
        return quota.of(mount, pwd.getpwuid(os.geteuid()).pw_name, runner), ""
    except KeyError:
        return None, "this user has no name here"
    except (ToolMissing, ToolTimeout, ToolError, ParseError) as error:
        return None, error.what


def _layouts(mount: Mount, tally: Tally, runner: Runner) -> dict[str, Layout]:
    """Read back the layouts of the largest files, on Lustre; those deleted meanwhile are left out."""
    if mount.kind != "lustre":
        return {}
    found = {}
    for amount, path in tally.largest:
        if amount >= UNSTRIPED_BYTES:
            try:
                found[path] = lustre.read_layout(Path(path), runner)
            except ToolMissing:
                return {}
            except (ToolError, ToolTimeout, ParseError):
                continue
    return found
