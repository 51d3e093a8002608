"""What commands share: output formats, tables and progress."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Word = TypeVar("Word", bound=StrEnum)


PLAIN_WIDTH = 200
"""Columns of a table when stdout is not a terminal."""


class Format(StrEnum):
    """How a reading command prints: for people, or for programs."""

    TABLE = "table"
    JSON = "json"


class OneOf(click.Choice[Word]):
    """A choice among the words of a StrEnum, whatever their case; click itself would take the members' names."""

    def __init__(self, words: type[Word]) -> None:
        super().__init__(words, case_sensitive=False)

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:  # noqa: ARG002 - click's interface
        """Return the form in which choices are compared."""
        return str(choice).casefold()


def format_option(function: F) -> F:
    """Add `--format table|json` to a command; it arrives as `output: Format`."""
    return click.option(
        "--format",
        "output",
        type=OneOf(Format),
        default=Format.TABLE.value,
        show_default=True,
        help="Print for people or for programs.",
    )(function)


def print_json(value: Any) -> None:  # noqa: ANN401 - JSON is any value
    """Print `value` as JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print rows as a table on stdout; plain text when stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(width=width, emoji=False, highlight=False, markup=False, soft_wrap=False).print(table)
    if not rows:
        click.echo("none")


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows of any width on stdout: as a table, or each row as lines of its own where that would be too wide."""
    widths = [max(len(str(cell)) for cell in cells) for cells in zip(columns, *rows, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
    if sum(widths) + 2 * len(widths) <= room:
        print_table(columns, rows)
        return
    longest = max(map(len, columns))
    for number, row in enumerate(rows, start=1):
        click.echo(f"row {number}")
        for column, cell in zip(columns, row, strict=True):
            click.echo(f"  {column:{longest}}  {cell}")


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Show a spinner with `doing` on stderr while the block runs; nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(doing):
        yield


_REFRESH_S = 0.1


@contextmanager
def counting() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a changing line on stderr; it does nothing if stderr is not a terminal.

    It starts no thread, so the block may fork.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.live import Live

    shown_s = 0.0
    with Live(console=Console(stderr=True, highlight=False), auto_refresh=False, transient=True) as live:

        def show(text: str) -> None:
            nonlocal shown_s
            if time.monotonic() - shown_s >= _REFRESH_S:
                shown_s = time.monotonic()
                live.update(text, refresh=True)

        yield show
