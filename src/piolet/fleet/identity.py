"""Who asks the service: the bearer of a token, or a node by munge or by Slurm's JSON Web Token.

A token is shown once, when it is made; the database has its hash. What a caller may do is its scopes, and a token for
reports can be bound to nodes, of which alone it may speak.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from piolet.core.errors import PioletError, Refused, UsageError, storage_errors
from piolet.core.nodeset import NodeSet
from piolet.core.run import Runner
from piolet.core.settings import FleetSettings
from piolet.core.text import did_you_mean
from piolet.fleet.store import Store
from piolet.tools import munge

_PREFIX = "piolet_"


class Scope(StrEnum):
    """What a caller may do: report evidence, read the state of the fleet, give orders."""

    SUBMIT = "submit"
    READ = "read"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `nodes` are those of which he may speak, None for all."""

    name: str
    scopes: frozenset[Scope]
    nodes: frozenset[str] | None = None


Known = Callable[[str], Caller | None]
"""Finds the bearer of a token by its hash."""


def new_token(store: Store, name: str, scopes: Sequence[Scope], nodes: str = "") -> str:
    """Make a token and return it; it is never shown again."""
    if not name or not scopes:
        raise UsageError("a token has a name and at least one scope", remedy="--scope submit, read or operate")
    token = _PREFIX + secrets.token_urlsafe(32)
    NodeSet(nodes)
    store.add_token({"name": name, "hash": hashed(token), "scopes": " ".join(scopes), "nodes": nodes})
    return token


def revoke(store: Store, name: str) -> None:
    """Forget a token."""
    if not store.drop_token(name):
        raise UsageError(
            f"there is no token {name}", remedy=did_you_mean(name, [one["name"] for one in store.tokens()])
        )


def hashed(token: str) -> str:
    """Return what is kept of a token: 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def callers(rows: Sequence[Mapping[str, Any]]) -> dict[str, Caller]:
    """Return the bearers of tokens by hash."""
    return {
        row["hash"]: Caller(
            row["name"],
            frozenset(Scope(scope) for scope in row["scopes"].split()),
            frozenset(NodeSet(row["nodes"])) if row["nodes"] else None,
        )
        for row in rows
    }


def identify(header: str, body: bytes, known: Known, runner: Runner, settings: FleetSettings) -> Caller:
    """Return who sends `body` with this Authorization header.

    Raises:
        Refused: it says nobody, or somebody who is not known.
    """
    scheme, _, credential = header.partition(" ")
    match scheme.lower():
        case "bearer" if credential.startswith(_PREFIX):
            caller = known(hashed(credential))
            if caller is None:
                raise Refused("this token is not known", remedy="ask the operators for a new one")
            return caller
        case "bearer" if settings.jwt_key:
            return _node(_jwt_user(credential, settings), settings)
        case "munge":
            return _node(_munge_user(credential, body, runner, settings), settings)
    raise Refused("say who you are", remedy="send Authorization: Bearer TOKEN, or Munge CREDENTIAL")


def munge_header(body: bytes, runner: Runner, settings: FleetSettings) -> str:
    """Return the header with which a node vouches for `body`."""
    return "Munge " + munge.encode(runner, _digest(body), settings.munge_socket)


def _munge_user(credential: str, body: bytes, runner: Runner, settings: FleetSettings) -> str:
    found = munge.decode(runner, credential, settings.munge_socket)
    if not secrets.compare_digest(found.payload.encode(), _digest(body).encode()):
        raise Refused("the munge credential is for another request", remedy="put the SHA-256 of the body in it")
    return found.user


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _jwt_user(token: str, settings: FleetSettings) -> str:
    """Return the user that Slurm's token names (claim ``sun``, HS256), if it is Slurm's and has not expired."""
    from joserfc import jwt  # noqa: PLC0415 - only where such tokens are taken
    from joserfc.errors import JoseError  # noqa: PLC0415 - same
    from joserfc.jwk import OctKey  # noqa: PLC0415 - same

    if settings.jwt_key is None:
        raise Refused("tokens of Slurm are not taken here", remedy="use a token of the fleet")
    with storage_errors(settings.jwt_key, "read Slurm's key"):
        key = OctKey.import_key(settings.jwt_key.read_bytes())
    try:
        claims = jwt.decode(token, key, algorithms=["HS256"]).claims
        jwt.JWTClaimsRegistry(exp={"essential": True}, sun={"essential": True}).validate(claims)
    except (JoseError, ValueError) as error:
        raise Refused(
            f"the token is not Slurm's or has expired: {error}", remedy="`scontrol token` makes one"
        ) from error
    return str(claims["sun"])


def _node(user: str, settings: FleetSettings) -> Caller:
    if user not in settings.node_users:
        raise Refused(f"{user} does not speak for nodes", remedy="those who do are in the setting fleet.node_users")
    return Caller(f"node:{user}", frozenset({Scope.SUBMIT}))


def header(body: bytes, runner: Runner, settings: FleetSettings) -> str:
    """Return the Authorization header for `body`: the token of the settings, or else a munge credential.

    Raises:
        StorageError: the token cannot be read.
        PioletError: munge does not answer.
    """
    if settings.token is None:
        return munge_header(body, runner, settings)
    with storage_errors(settings.token, "read the token for the fleet's service"):
        token = settings.token.read_text(encoding="utf-8").strip()
    if not token.startswith(_PREFIX) or not token.isascii():
        raise PioletError("this is no token", where=str(settings.token), remedy="`piolet fleet token new` makes one")
    return f"Bearer {token}"
