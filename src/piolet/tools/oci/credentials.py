"""Credentials for registries, from the files that users already have; first found wins.

    $REGISTRY_AUTH_FILE                                  podman, skopeo, buildah
    $XDG_RUNTIME_DIR/containers/auth.json                same
    ~/.config/containers/auth.json                       same
    $DOCKER_CONFIG/config.json, else ~/.docker/config.json   docker, its credential helpers too
    $ENROOT_CONFIG_PATH/.credentials, else ~/.config/enroot/.credentials   enroot, in netrc's form

Nothing is written, and nothing secret appears in a message.
"""

from __future__ import annotations

import base64
import binascii
import json
import netrc
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from piolet.core.errors import ParseError, PioletError
from piolet.core.files import read_json
from piolet.core.run import Runner
from piolet.tools.oci.reference import HUB, Reference

_HELPER_TIMEOUT_S = 30.0
_HUB_NAMES = ("docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io", "auth.docker.io")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers answer instead of a name when the secret is an identity token


@dataclass(frozen=True, slots=True)
class Credential:
    """A name and a secret; `is_token` says that the secret is an identity token. `origin` is the file it is from."""

    user: str
    secret: str = field(repr=False)
    origin: str
    is_token: bool = False


def find(reference: Reference, environ: Mapping[str, str], runner: Runner) -> Credential | None:
    """Return the credential for the registry of `reference`, of its user if it names one; None without one.

    Raises:
        ParseError: a file of credentials that exists cannot be read as one.
    """
    for path in json_files(environ):
        for credential in _in_json(path, reference, runner):
            if reference.user in {"", credential.user}:
                return credential
    return _in_netrc(netrc_file(environ), reference, environ)


def json_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files of Podman and Docker in which credentials may be."""
    home = Path(environ.get("HOME") or "/nonexistent")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    found = [Path(environ["REGISTRY_AUTH_FILE"])] if environ.get("REGISTRY_AUTH_FILE") else []
    if environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(environ["XDG_RUNTIME_DIR"]) / "containers/auth.json")
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    return (*found, config / "containers/auth.json", docker / "config.json")


def netrc_file(environ: Mapping[str, str]) -> Path:
    """Return the file of enroot in which credentials may be."""
    home = Path(environ.get("HOME") or "/nonexistent")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return Path(environ.get("ENROOT_CONFIG_PATH") or config / "enroot") / ".credentials"


def _in_json(path: Path, reference: Reference, runner: Runner) -> Iterator[Credential]:
    if not path.is_file():
        return
    content = read_json(path)
    if not isinstance(content, dict):
        raise ParseError("not a file of credentials", source=str(path))
    auths, helpers = content.get("auths") or {}, content.get("credHelpers") or {}
    for name in _names(reference):
        helper = helpers.get(name) or (content.get("credsStore") if name in auths else None)
        found = _from_helper(helper, name, path, runner) if helper else _from_entry(auths.get(name), name, path)
        if found:
            yield found


def _names(reference: Reference) -> Iterator[str]:
    """The names under which a credential may stand, the most specific first."""
    parts = f"{reference.registry}/{reference.repository}".split("/")
    for length in range(len(parts), 1, -1):
        yield "/".join(parts[:length])
    for host in _HUB_NAMES if reference.registry == HUB else (reference.registry,):
        yield from (host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/")


def _from_entry(entry: Any, name: str, path: Path) -> Credential | None:  # noqa: ANN401 - as in JSON
    if not entry:
        return None
    if entry.get("identitytoken"):
        return Credential("", entry["identitytoken"], str(path), is_token=True)
    try:
        user, _, secret = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except KeyError:
        user, secret = entry.get("username", ""), entry.get("password", "")
    except (binascii.Error, ValueError, TypeError) as error:
        raise ParseError(f'the credential of "{name}" is not base64', source=str(path)) from error
    return Credential(user, secret.rstrip("\0"), str(path)) if user else None


def _from_helper(helper: str, name: str, path: Path, runner: Runner) -> Credential | None:
    argv = [f"docker-credential-{helper}", "get"]
    done = runner.run(argv, timeout=_HELPER_TIMEOUT_S, ok=None, stdin=name)
    if done.rc:
        return None
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise ParseError("not the answer of a credential helper", source=argv[0]) from error
    is_token = user == _TOKEN_USER
    return Credential("" if is_token else user, secret, f"{path} ({argv[0]})", is_token=is_token)


def _in_netrc(path: Path, reference: Reference, environ: Mapping[str, str]) -> Credential | None:
    if not path.is_file():
        return None
    try:
        entries = netrc.netrc(str(path)).hosts
    except (netrc.NetrcParseError, UnicodeDecodeError) as error:
        raise ParseError("not in netrc's form", source=str(path)) from error
    except OSError as error:
        raise PioletError(f"cannot read credentials: {error.strerror}", where=str(path)) from error
    for host in _HUB_NAMES if reference.registry == HUB else (reference.registry, reference.registry.split(":")[0]):
        login, _, password = entries.get(host, ("", "", ""))
        if login and reference.user in {"", login}:
            return Credential(login, _with_variables(password or "", environ), str(path))
    return None


def _with_variables(text: str, environ: Mapping[str, str]) -> str:
    """Replace $NAME and ${NAME}, as enroot does; what is not defined stays as it is."""
    return _VARIABLE.sub(lambda found: environ.get(found[1] or found[2], found[0]), text)
