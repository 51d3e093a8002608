"""The `piolet` command: loads each subcommand when it is used, and turns errors into one clear message."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
from typing import TextIO

import click

from piolet import __version__
from piolet.core.errors import NO_ROOM, PioletError, StorageError, ToolMissing

COMMANDS = {
    "run": ("piolet.cli.run", "Run a program on good nodes, in its container, recorded."),
    "env": ("piolet.cli.env", "Container environments from EDF files."),
    "record": ("piolet.cli.record", "Record what the GPUs and the host do while a program runs."),
    "logbook": ("piolet.cli.logbook", "List, verify, merge, export and remove the logbooks of jobs."),
    "score": ("piolet.cli.score", "How well a job used its GPUs; the report."),
    "data": ("piolet.cli.data", "Storage: check, pack, stage, lay out, plan checkpoints."),
    "watch": ("piolet.cli.watch", "Why a job is slow; its data and their quality; SQL."),
    "fleet": ("piolet.cli.fleet", "The operators' centre: repeat offenders, rules, drains."),
    "vet": ("piolet.cli.vet", "Check that nodes are ready to compute."),
    "guard": ("piolet.cli.guard", "Secrets in scripts and logs; model files that run code."),
    "service": ("piolet.cli.service", "Support and inference services of a project, from one file."),
    "web": ("piolet.cli.web", "Jobs in the browser, past and running."),
    "lab": ("piolet.cli.lab", "A real Slurm cluster with simulated GPUs on this machine."),
    "config": ("piolet.cli.config", "Settings in force and where each comes from."),
}

EXTRAS = {
    "altair": "notebook",
    "authlib": "web",
    "blake3": "data",
    "cel": "service",
    "httptools": "service",
    "itsdangerous": "web",
    "joserfc": "fleet",
    "limits": "web",
    "marimo": "notebook",
    "model_signing": "signing",
    "packageurl": "guard",
    "pamela": "web",
    "pandas": "frames",
    "polars": "frames",
    "psycopg": "fleet",
    "pyarrow": "frames",
    "prometheus_client": "service",
    "sqlalchemy": "fleet",
    "starlette": "web",
    "univers": "guard",
    "uvicorn": "web",
}
"""Which extra brings a module that not everybody needs."""

INTERRUPTED = 128 + signal.SIGINT


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        """Return the names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's interface
        """Import the module of the command and return it."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which name is near."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - same
        """List the commands from the table, so that help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="piolet")
def command() -> None:
    """Piolet makes a Slurm supercomputer serve machine learning.

    Exit status: 0 clean, 1 findings, 2 wrong usage, 3 something outside failed; `piolet run` exits as the
    program did.
    """


def main() -> None:
    """Run the command line and exit."""
    status = run_command()
    try:
        sys.stdout.flush()
    except OSError as error:
        status = _unsaid(error)
    try:
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)
    sys.exit(status)


def run_command(args: list[str] | None = None) -> int:
    """Run the command line on `args` (default: the process's own) and return the exit status."""
    try:
        status = command.main(args=args, prog_name="piolet", standalone_mode=False)
    except PioletError as error:
        _tell(str(error))
        return error.exit_status
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        missing = ToolMissing(f"the Python package {error.name}", remedy=f'pip install "piolet[{extra}]"')
        _tell(str(missing))
        return missing.exit_status
    except (click.Abort, KeyboardInterrupt):
        _tell("interrupted")
        return INTERRUPTED
    except OSError as error:
        return _refused(error)
    return status if isinstance(status, int) else 0


def _tell(text: str) -> None:
    """Say something on stderr, if that takes it."""
    with contextlib.suppress(OSError):
        click.echo(f"piolet: {text}", err=True)


def _refused(error: OSError) -> int:
    """Return the exit status where a path was refused, wherever a command came upon it, or the output."""
    if isinstance(error, PermissionError) and error.filename:
        where, remedy = str(error.filename), "ask its owner, or name another path"
        _tell(str(StorageError("permission denied", where=where, remedy=remedy)))
        return StorageError.exit_status
    if error.errno not in (errno.EPIPE, *NO_ROOM) or error.filename:
        raise error
    return _unsaid(error)


def _unsaid(error: OSError) -> int:
    """Return the exit status of a command whose output could not be written; a reader that left has read enough."""
    if error.errno != errno.EPIPE:
        _tell(f"the output could not be written: {error.strerror}")
    _drop(sys.stdout)
    return 0 if error.errno == errno.EPIPE else StorageError.exit_status


def _drop(stream: TextIO) -> None:
    """Lead a stream nowhere: what it still holds would be tried again at the very end, and make the status 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
