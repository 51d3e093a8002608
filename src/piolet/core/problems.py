"""Reporting every problem of what a user wrote at once, rather than one a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from piolet.core.errors import ConfigError, UsageError
from piolet.core.text import plural


@contextmanager
def kept(problems: list[ConfigError]) -> Iterator[None]:
    """Keep a ConfigError of the block in `problems`, to be raised with the others."""
    try:
        yield
    except ConfigError as error:
        problems.append(error)


def raise_all(problems: Sequence[ConfigError], subject: str) -> None:
    """Raise the one problem there is, or a UsageError that lists all of `subject`; return if there is none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = "\n".join(map(str, problems))
        raise UsageError(f"{plural(len(problems), 'problem')} in {subject}\n{listed}")
