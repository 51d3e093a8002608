"""A new end for the lease of a service, in its file as the user wrote it."""

from __future__ import annotations

import re
from datetime import date

from piolet.service import reading
from piolet.service.reading import ServiceFile

_DATE = re.compile(r"(\s*expires\s*=\s*)\d{4}-\d{2}-\d{2}(.*)", re.DOTALL)


def renewed(file: ServiceFile, until: date) -> ServiceFile:
    """Return the file with another date in its line `expires`; nothing is written.

    Raises:
        ConfigError: there is no such line.
    """
    lines = file.source.splitlines(keepends=True)
    position = file.document.positions.get("expires")
    found = _DATE.fullmatch(lines[position.line - 1]) if position else None
    if position is None or found is None:
        raise file.document.error("there is no line to renew", "expires", remedy=f"write it: expires = {until}")
    lines[position.line - 1] = f"{found[1]}{until}{found[2]}"
    return reading.parse("".join(lines).encode(), file.document.path)
