"""munge: credentials that say who made them, on machines that share a key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import ParseError, Refused
from piolet.core.run import Runner

_TIMEOUT_S = 10.0
_UID = re.compile(r"(?m)^UID:\s+(\S+) \(\d+\)$")
_STATUS = re.compile(r"\ASTATUS:\s+(.+) \((\d+)\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a good credential says: the user who made it, and what he put in it."""

    user: str
    payload: str


def encode_argv(socket: Path | None = None) -> list[str]:
    """Return the command that makes a credential of stdin."""
    return ["munge", *_socket(socket)]


def decode_argv(socket: Path | None = None) -> list[str]:
    """Return the command that opens the credential on stdin."""
    return ["unmunge", *_socket(socket)]


def parse(text: str) -> Credential:
    """Return what unmunge says of a credential.

    Raises:
        Refused: it is expired, was shown before, or is otherwise not good.
        ParseError: unmunge answers in another form.
    """
    header, _, payload = text.partition("\n\n")
    status, user = _STATUS.search(header), _UID.search(header)
    if status is None or user is None:
        raise ParseError("unmunge names no status and user", source="unmunge", text=header)
    if status[2] != "0":
        raise Refused(f"the munge credential is not good: {status[1]}", remedy="make a new one for each request")
    return Credential(user[1], payload)


def encode(runner: Runner, payload: str, socket: Path | None = None) -> str:
    """Return a credential of this user that holds `payload`."""
    return runner.run(encode_argv(socket), timeout=_TIMEOUT_S, stdin=payload).stdout.strip()


def decode(runner: Runner, credential: str, socket: Path | None = None) -> Credential:
    """Open a credential; each can be opened once.

    Raises:
        Refused: it is not good.
    """
    said = runner.run(decode_argv(socket), timeout=_TIMEOUT_S, stdin=credential, ok=None)
    if not said.stdout:
        raise Refused("this is no munge credential", where=said.stderr.strip()[-200:], remedy="`munge` makes one")
    return parse(said.stdout)


def _socket(socket: Path | None) -> list[str]:
    return [f"--socket={socket}"] if socket else []
