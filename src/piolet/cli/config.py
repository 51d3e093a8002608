"""`piolet config`: the settings in force."""

from __future__ import annotations

import click

from piolet.cli.common import Format, format_option, print_json, print_table
from piolet.core import config


@click.group()
def command() -> None:
    """Settings in force and where each comes from."""


@command.command()
@format_option
def show(output: Format) -> None:
    """Print every setting, its value and its origin (default, site file, user file, environment)."""
    rows = config.load().rows()
    if output is Format.JSON:
        print_json({key: {"value": value, "origin": origin} for key, value, origin in rows})
    else:
        print_table(("setting", "value", "origin"), rows)


@command.command()
def keys() -> None:
    """Print every setting that exists, with what it means."""
    print_table(("setting", "meaning"), [(key, config.describe(key)) for key in config.known_keys()])
