"""ClickHouse, as chDB embeds it. Loading it blocks SIGPIPE, for programs that are started later too: undone here."""

from __future__ import annotations

import signal

import chdb

signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPIPE})


def query(text: str) -> str:
    """Run a query and return the answer in the format JSONCompact."""
    return str(chdb.query(text, "JSONCompact"))
