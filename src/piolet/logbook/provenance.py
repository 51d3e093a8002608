"""What a job ran with: versions, and the commit of the code that it was started from."""

from __future__ import annotations

import sys
from pathlib import Path

from piolet import __version__
from piolet.tools import git


def versions(directory: Path) -> dict[str, str]:
    """Return the versions of Piolet and Python, and the revision of the repository that holds `directory`, if any."""
    known = {"piolet": __version__, "python": sys.version.partition(" ")[0], "code": git.revision(directory)}
    return {name: version for name, version in known.items() if version}
