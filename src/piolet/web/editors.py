"""Notebook editors that the server started, for the person who started the server: they run as that person.

Where others log in, there are none: a notebook is a program, and would run with the server's rights.
"""

from __future__ import annotations

import secrets
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from urllib.parse import urlencode

import platformdirs

from piolet.core.errors import PioletError, storage_errors
from piolet.core.run import Process, SystemRunner, end
from piolet.logbook.layout import Logbook
from piolet.watch import notebook

READY_S = 30.0
_GRACE_S = 3.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Editor:
    """A running editor of a notebook and the address that opens it."""

    process: Process
    path: Path
    port: int
    address: str


@dataclass(slots=True)
class Editors:
    """At most one editor for each job; all end with the server."""

    running: dict[Path, Editor] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def open(self, logbook: Logbook) -> Editor:
        """Return the editor of a job's notebook, started if it does not run; the notebook stays where it is.

        Raises:
            ToolMissing: marimo is not installed.
            PioletError: it did not start.
        """
        notebook.check_installed()
        with self.lock:
            found = self.running.get(logbook.path)
            if found is None or found.process.poll() is not None:
                found = self.running[logbook.path] = _start(logbook)
        return found

    def close(self) -> None:
        """End all of them."""
        with self.lock:
            for each in self.running.values():
                end(each.process, _GRACE_S)
            self.running.clear()


def place(logbook: Logbook) -> Path:
    """Return where the notebook of a job lies: with the user's own data, so that it outlives the server."""
    directory = Path(platformdirs.user_data_dir("piolet")) / "notebooks"
    return directory / f"{logbook.path.parent.name}-{logbook.path.name}.py"


def _start(logbook: Logbook) -> Editor:
    path, port, token = place(logbook), _free_port(), secrets.token_urlsafe(24)
    with storage_errors(path, "write the notebook"):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        notebook.write(path, logbook)
    with tempfile.NamedTemporaryFile("w", suffix=".token") as file:  # everybody can read a command line
        file.write(token)
        file.flush()
        options = ("--headless", "--host", "127.0.0.1", "--port", str(port), "--token-password-file", file.name)
        process = SystemRunner().start(notebook.editor(path, *options))
        _wait(process, port)
    return Editor(process, path, port, f"http://127.0.0.1:{port}/?{urlencode({'access_token': token})}")


def _wait(process: Process, port: int) -> None:
    until = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_LOOK_S)
    end(process, _GRACE_S)
    raise PioletError("the editor of notebooks did not start", remedy="try `piolet watch notebook JOB` in a shell")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
