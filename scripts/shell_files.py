"""Write what shells and `man` know of the command line, made from it: python scripts/shell_files.py SHARE_DIRECTORY."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete
from click_man.core import write_man_pages

from piolet import __version__
from piolet.cli.main import command

COMPLETIONS = {
    "bash-completion/completions/piolet": BashComplete,
    "zsh/site-functions/_piolet": ZshComplete,
    "fish/vendor_completions.d/piolet.fish": FishComplete,
}
"""Where the shells look, below a `share` beside the `bin` that is in PATH."""


def whole_sentences(group: click.Group, context: click.Context) -> None:
    """Let every command of a group be told of in one whole sentence, where click would cut it."""
    group.commands = {
        name: found for name in group.list_commands(context) if (found := group.get_command(context, name))
    }
    for found in group.commands.values():
        found.short_help = found.get_short_help_str(1000)
        if isinstance(found, click.Group):
            whole_sentences(found, context)


def main(share: Path) -> None:
    """Write the man pages and the completions below `share`."""
    man = share / "man" / "man1"
    man.mkdir(parents=True, exist_ok=True)
    whole_sentences(command, click.Context(command))
    write_man_pages("piolet", command, version=__version__, target_dir=str(man))
    for place, shell in COMPLETIONS.items():
        (share / place).parent.mkdir(parents=True, exist_ok=True)
        (share / place).write_text(shell(command, {}, "piolet", "_PIOLET_COMPLETE").source())


main(Path(sys.argv[1]))
