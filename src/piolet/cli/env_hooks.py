"""`piolet env hooks` and `cdi`: what annotations switch on, and what a node brings into containers for its devices."""

from __future__ import annotations

import os
from pathlib import Path

import click

from piolet.cli.common import Format, format_option, print_json, print_table
from piolet.core import config
from piolet.core.files import write_text
from piolet.env import cdi as devices
from piolet.env import hook_files
from piolet.env.lookup import Context
from piolet.env.plan import part_text


@click.command()
@format_option
def hooks(output: Format) -> None:
    """List the hooks that annotations switch on, and the file of each.

    Copy a file to ~/.config/piolet/hooks.d, or to a directory of the setting env.hooks_path, to change a hook.
    """
    context = Context(os.environ, Path.cwd(), config.load().settings)
    found = hook_files.all_hooks(context)
    if output is Format.JSON:
        keys = ("name", "switch", "annotations", "summary", "file")
        values = [(hook.name, hook.switch, list(hook.annotations), hook.summary, str(hook.path)) for hook in found]
        print_json([dict(zip(keys, each, strict=True)) for each in values])
    else:
        rows = [(hook.switch, ", ".join(hook.annotations.values()), hook.summary, hook.path) for hook in found]
        print_table(("annotation", "other keys", "what it does", "file"), rows)


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path), default=devices.ON_NODES, show_default=True, help="Directory."
)
def cdi(output: Path) -> None:
    """Compile this node's CDI specifications for the containers on it, and print the files.

    For operators, where nodes differ from the hosts that jobs are submitted on (setting env.cdi_on_nodes): run it as
    root on each node when it has started and whenever a specification changes. A file that is out of date is refused.
    """
    for spec in devices.specs(config.load().settings.env.cdi):
        for name in spec.devices:
            edits = devices.of_device(spec, name, "device")
            path = output / devices.file_name(f"{spec.kind}={name}")
            write_text(path, part_text(spec.path, edits.mounts, edits.variables, edits.lines), mode=0o644)
            click.echo(path)


COMMANDS = (hooks, cdi)
