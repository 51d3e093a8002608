"""The pages of the reference that follow from the code: commands, settings, checks, rules. Run by mkdocs."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence

import click
import mkdocs_gen_files

from piolet.cli.main import COMMANDS
from piolet.core import config, plugins
from piolet.guard.rules import RULES
from piolet.vet import catalogue


def write(name: str, *parts: str) -> None:
    """Write one page of the reference."""
    with mkdocs_gen_files.open(f"reference/{name}.md", "w") as page:
        page.write("\n\n".join(parts) + "\n")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    """Yield the help of a command and of its subcommands, each as it prints it, under its name."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=80)
    yield f"{'## ' if parent else '# '}{context.command_path}\n\n```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            if found:
                yield from helps(found, sub, context)


def check(explained: catalogue.Explained) -> str:
    """Return the section of one check."""
    parts = [f"## {explained.type}", f"Good: {explained.summary}.", f"Threshold: {explained.source}.", explained.text]
    rows = [(f"`{name}`", kind, default) for name, kind, default in explained.parameters]
    return "\n\n".join([*parts, *([table(("Parameter", "Kind", "Default"), rows)] if rows else [])])


def rule(found: object) -> tuple[str, str, str, str]:
    """Return the row of one rule of the diagnosis."""
    name, title, refuted, source = (str(getattr(found, key)) for key in ("name", "title", "refuted_by", "source"))
    return f"`{name}`", title, refuted, source


for name, (module, _) in COMMANDS.items():
    write(f"commands/{name}", *helps(importlib.import_module(module).command, f"piolet {name}"))

write(
    "settings",
    "# Settings",
    "A setting is read from the site's file, the user's file, the environment (`PIOLET_SECTION_KEY`) and flags; "
    "the later wins. "
    "`piolet config show` says what is in force, and from where.",
    table(("Setting", "Meaning"), [(f"`{key}`", config.describe(key)) for key in config.known_keys()]),
)
write(
    "checks",
    "# Checks",
    "What `piolet vet` can check. `piolet vet explain TYPE` prints the same.",
    *(check(catalogue.explain(name)) for name in sorted(catalogue.check_types())),
)
diagnosis = plugins.load("piolet.rules").loaded
write(
    "rules",
    "# Rules",
    "## Of the diagnosis",
    "`piolet watch diagnose JOB` asks each of these, then drops what another finding explains.",
    table(("Rule", "Finds", "Is refuted by", "Source"), [rule(diagnosis[name]) for name in sorted(diagnosis)]),
    "## Of the guard",
    "`piolet guard rules` prints them with the level that your policy gives.",
    table(
        ("Rule", "Level", "Means", "Do"),
        [(f"`{each.id}`", each.level.value, each.title, each.remedy) for each in RULES.values()],
    ),
)
write(
    "python",
    "# Python",
    "What `import piolet` offers. Programs that only log need no dependency of it.",
    "::: piolet.log",
    "::: piolet.phase",
    "::: piolet.open",
    "::: piolet.watch.book.Book",
)
