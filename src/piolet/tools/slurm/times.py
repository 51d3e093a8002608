"""Times as Slurm writes them.

Piolet's Runner asks Slurm for Unix seconds (SLURM_TIME_FORMAT=%s), which mean the same in every time zone; the
standard form is read too, as local time of this process.
"""

from __future__ import annotations

import math
import re
from datetime import datetime

from piolet.core.errors import ParseError

_NEVER = frozenset({"", "0", "Unknown", "None", "NONE", "N/A", "NA", "(null)", "n/a"})
_ENDLESS = frozenset({"UNLIMITED", "INFINITE", "infinite", "unlimited"})
_UNSET = frozenset({"", "NOT_SET", "NONE", "N/A", "n/a", "INVALID", "Partition_Limit", "(null)", "Unknown", "None"})
_NS = 1_000_000_000
_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})(?P<fraction>\.\d+)?", re.ASCII)


def parse_timestamp_ns(text: str) -> int | None:
    """Return UTC nanoseconds; None where Slurm says that there is no such time (Unknown, None, N/A)."""
    text = text.strip()
    if text in _NEVER:
        return None
    if text.isascii() and text.isdigit():
        return int(text) * _NS
    try:
        return int(datetime.fromisoformat(text).timestamp()) * _NS
    except ValueError as error:
        raise ParseError("not a time of Slurm", source="timestamp", text=text) from error


def parse_duration_s(text: str) -> float | None:
    """Return seconds of ``D-HH:MM:SS``, ``HH:MM:SS``, ``MM:SS``, ``MM:SS.mmm`` or, as in --time, ``minutes``.

    UNLIMITED is infinity; None where no duration is set. After a day the parts are hours first: ``1-12`` is a
    day and twelve hours (sbatch(1), --time).
    """
    text = text.strip()
    if text in _ENDLESS:
        return math.inf
    if text in _UNSET:
        return None
    match = _CLOCK.fullmatch(text)
    if not match:
        raise ParseError("not a duration of Slurm", source="duration", text=text)
    parts = [int(part) for part in match["clock"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 1:
        hours, minutes, seconds = 0, parts[0], 0
    else:
        hours, minutes, seconds = (0, 0, *parts)[-3:]
    return int(match["days"] or 0) * 86400 + hours * 3600 + minutes * 60 + seconds + float(match["fraction"] or 0)


def format_duration(seconds: float) -> str:
    """Return ``D-HH:MM:SS`` (days only if any), rounded up to whole seconds; UNLIMITED for infinity."""
    if math.isinf(seconds):
        return "UNLIMITED"
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour:02d}:{minute:02d}:{second:02d}"
    return f"{days}-{clock}" if days else clock
