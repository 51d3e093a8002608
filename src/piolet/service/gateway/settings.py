"""The `gateway.toml`: where the gateway listens, which services are behind it, and whose keys open them."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from piolet.core import toml
from piolet.core.errors import ConfigError, ParseError, UsageError
from piolet.core.nodeset import NodeSet
from piolet.core.problems import raise_all
from piolet.core.sockets import is_loopback
from piolet.service.model import Name, Table, Text
from piolet.service.reading import validated

ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*/[a-z][a-z0-9-]*$", max_length=80)]
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KEY_PREFIX = "piolet-"


class Behind(Table):
    """A service behind the gateway: the directory of one on Slurm, or fixed addresses of one on Kubernetes.

    `model` is what the engine itself calls its model, by default the name of the service.
    """

    directory: Text = ""
    urls: list[Url] = Field(default_factory=list)
    model: Text = ""
    shared_with: list[Name] = Field(default_factory=list)


class Key(Table):
    """A key of a project, by its SHA-256: keys are long and random, so nothing slower is needed. 0 is no limit."""

    project: Name
    sha256: Sha256
    requests_per_minute: Annotated[int, Field(ge=0)] = 600
    tokens_per_month: Annotated[int, Field(ge=0)] = 0
    expires: date | None = None


class Gateway(Table):
    """Everything that the gateway is told; paths are relative to the file."""

    listen: Address = "127.0.0.1:8419"
    certificate: Text = ""
    key: Text = ""
    metrics: Address | None = None
    usage: Text = "gateway-usage.db"
    nodes: Text = ""
    patience_s: Annotated[int | float, Field(ge=0, le=60)] = 10
    timeout_s: Annotated[int | float, Field(gt=0, le=3600)] = 600
    services: dict[ServiceName, Behind] = Field(default_factory=dict)
    keys: dict[Name, Key] = Field(default_factory=dict)


def read(path: Path) -> Gateway:
    """Read and check a `gateway.toml`.

    Raises:
        ConfigError, UsageError: one problem, or all of them.
    """
    document = toml.read(path)
    gateway = validated(document, Gateway)
    raise_all(list(_problems(gateway, document)), str(path))
    return gateway


def _problems(gateway: Gateway, document: toml.Document) -> Iterator[ConfigError]:
    if not is_loopback(split(gateway.listen)[0]) and not gateway.certificate:
        what = f"{gateway.listen} can be reached from other machines, and without TLS they would read along"
        yield document.error(what, "listen", remedy="set certificate and key, or listen on 127.0.0.1")
    if bool(gateway.certificate) != bool(gateway.key):
        yield document.error("certificate and key go together", "certificate", remedy="set both, or none")
    try:
        NodeSet(gateway.nodes)
    except ParseError as error:
        yield document.error(error.what, "nodes", remedy="write node names as Slurm does: nid[0001-2000]")
    for name, behind in gateway.services.items():
        if bool(behind.directory) == bool(behind.urls):
            what = "a service has a directory (on Slurm) or urls (elsewhere)"
            yield document.error(what, f"services.{name}", remedy="give one of them")
        if behind.directory and not gateway.nodes:
            remedy = "name them: else whoever writes into a service's directory could send requests anywhere"
            yield document.error("nodes are missing, on which services on Slurm may run", "nodes", remedy=remedy)


def split(address: str) -> tuple[str, int]:
    """Return host and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def new_key() -> str:
    """Return a new key; 192 bits from the system."""
    return KEY_PREFIX + secrets.token_urlsafe(24)


def table(name: str, project: str, key: str) -> str:
    """Return the table of a gateway.toml that lets `key` in.

    Raises:
        UsageError: a name has not the form of one.
    """
    for word in (name, project):
        if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", word):
            raise UsageError(f'"{word}" is not a name', remedy="write small letters, digits and dashes")
    return f'[keys.{name}]\nproject = "{project}"\nsha256 = "{digest(key)}"'


def digest(key: str) -> str:
    """Return the form in which a key is kept."""
    return hashlib.sha256(key.encode()).hexdigest()


def owner(gateway: Gateway, key: str, today: date) -> str | None:
    """Return the name of the key that is `key` and has not expired, None if there is none."""
    wanted = digest(key)
    found = [name for name, each in gateway.keys.items() if hmac.compare_digest(each.sha256, wanted)]
    expires = gateway.keys[found[0]].expires if found else None
    return found[0] if found and (expires is None or today <= expires) else None


def opened(gateway: Gateway, key: Key) -> dict[str, Behind]:
    """Return the services that a key opens, by PROJECT/NAME."""
    return {
        name: behind
        for name, behind in gateway.services.items()
        if key.project == name.partition("/")[0] or key.project in behind.shared_with
    }
