"""Logging to stderr with structlog; stdout is for data."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def logger(name: str) -> FilteringBoundLogger:
    """Return a logger bound to `name`; the first call configures structlog."""
    import structlog  # noqa: PLC0415 - imported when something is logged, so that `--help` stays fast

    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
            ],
            logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # stderr as it is when something is logged
        )
    return cast("FilteringBoundLogger", structlog.get_logger(name=name))
