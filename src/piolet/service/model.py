"""What a `service.toml` may say: strict types, closed tables, and the rules that hold between keys.

Nothing here knows the site: what a site allows is a policy, and what it has is in its `platform.toml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from piolet.tools.slurm.times import parse_duration_s


class RunOn(StrEnum):
    """Where a service runs: on the commodity or the GPU nodes of the Kubernetes cluster, or as jobs of Slurm."""

    COMMODITY = "commodity"
    GPU = "gpu"
    SLURM = "slurm"


class Expose(StrEnum):
    """Who reaches a service: nobody outside of its project's namespace, or ever larger circles."""

    NONE = "none"
    PROJECT = "project"
    INSTITUTION = "institution"
    INTERNET = "internet"


class Auth(StrEnum):
    """Who may pass: people who log in with the institution's OIDC, or anybody who reaches the service."""

    OIDC = "oidc"
    NONE = "none"


def _plain(text: str) -> str:
    """Return `text` if a Kubernetes object can hold it: no NUL and no other control character but tab and newline."""
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]", text):
        raise ValueError("holds a control character")
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/") or "//" in text or (text.endswith("/") and text != "/"):
        raise ValueError('must be an absolute path without ".." or a "/" at its end')
    return text


Text = Annotated[str, AfterValidator(_plain)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
VolumeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*$", max_length=20)]
"""Without a dash: the claim SERVICE-VOLUME of one service is never that of another."""
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
Path = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$", max_length=250), AfterValidator(_path)]
Size = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}(MiB|GiB|TiB)$")]
Host = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,20}$", max_length=200)
]
SecretPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*#[A-Za-z0-9_.-]+$")]
Image = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-zA-Z0-9._:/-]*(@sha256:[a-f0-9]{64})?$", max_length=300)]
Cron = Annotated[str, StringConstraints(pattern=r"^[0-9*/,-]+( [0-9*/,-]+){4}$", max_length=100)]
TimeLimit = Annotated[str, StringConstraints(pattern=r"^([0-9]{1,3}-)?[0-9]{1,5}(:[0-9]{1,2}){0,2}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]*$", max_length=100)]
UserId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Table(BaseModel):
    """A table of the file: what is not known is an error, and types are not guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Resources(Table):
    """What one replica gets: processors, memory, GPUs."""

    cpus: Annotated[int | float, Field(gt=0, le=512)] = 1
    memory: Size = "1GiB"
    gpus: Annotated[int, Field(ge=0, le=64)] = 0


class Volume(Table):
    """A volume that outlives the service's pods: where it is mounted, its size, and the site's name for its kind."""

    path: Path
    size: Size
    kind: Name = "shared"
    read_only: bool = False


class Health(Table):
    """How to know that the service works: an HTTP path, and the seconds that it may take to start."""

    path: Path = "/"
    startup_s: Annotated[int, Field(ge=1, le=7200)] = 120
    period_s: Annotated[int, Field(ge=1, le=300)] = 10


class Scale(Table):
    """Replicas that follow the load: between `min` and `max`, aiming at this share of the processors asked for."""

    min: Annotated[int, Field(ge=1, le=100)] = 1
    max: Annotated[int, Field(ge=1, le=100)]
    cpu_percent: Annotated[int, Field(ge=10, le=95)] = 70


class Slurm(Table):
    """How a service runs as jobs of Slurm, each followed by its successor.

    A job has `nodes` whole nodes (and `spares` until vetting has chosen), in the container of an EDF. Its successor may
    begin `overlap_minutes` before the job's time is over; `drain_s` seconds stay for the requests that are under way
    once the successor has taken over.
    """

    environment: Text = ""
    partition: Word = ""
    account: Word = ""
    time_limit: TimeLimit = "12:00:00"
    overlap_minutes: Annotated[int, Field(ge=1, le=1440)] = 30
    drain_s: Annotated[int, Field(ge=0, le=3600)] = 60
    nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    spares: Annotated[int, Field(ge=0, le=100)] = 0
    vet: Text = ""
    record: bool = False


class Service(Table):
    """One service, as its owner writes it down."""

    name: Name
    project: Annotated[Name, Field(max_length=30)]
    description: Text = ""
    image: Image | Literal[""] = ""
    command: list[Text] = Field(default_factory=list)
    port: Annotated[int, Field(ge=1024, le=65535)] | None = None
    run_on: Annotated[RunOn, Field(strict=False)] = RunOn.COMMODITY
    replicas: Annotated[int, Field(ge=1, le=100)] | Scale = 1
    user: UserId = 65532
    group: UserId = 65532
    expose: Annotated[Expose, Field(strict=False)] = Expose.NONE
    host: Host | None = None
    auth: Annotated[Auth, Field(strict=False)] = Auth.OIDC
    metrics: Path | None = None
    schedule: Cron | None = None
    expires: date | None = None
    resources: Resources = Resources()
    health: Health | None = None
    storage: dict[VolumeName, Volume] = Field(default_factory=dict)
    env: dict[VariableName, Text] = Field(default_factory=dict)
    secrets: dict[VariableName, SecretPath] = Field(default_factory=dict)
    files: dict[Path, Text] = Field(default_factory=dict)
    slurm: Slurm = Slurm()

    @property
    def most_replicas(self) -> int:
        """The replicas that may run at once."""
        return self.replicas.max if isinstance(self.replicas, Scale) else self.replicas


Contradiction = tuple[str, str, str]
"""Key, what is wrong, what to do."""

NOT_SCHEDULED = ("port", "health", "host", "metrics", "replicas", "expose")
NOT_ON_SLURM = (
    "image",
    "user",
    "group",
    "expose",
    "host",
    "auth",
    "metrics",
    "schedule",
    "storage",
    "secrets",
    "files",
)  # fmt: skip - a table


def contradictions(service: Service) -> Iterator[Contradiction]:
    """Yield where keys of a service that are right on their own do not go together."""
    yield from _on_slurm(service) if service.run_on is RunOn.SLURM else _on_kubernetes(service)
    yield from _value_contradictions(service)


def _on_kubernetes(service: Service) -> Iterator[Contradiction]:
    given = service.model_fields_set
    if not service.image:
        yield "image", "image is missing", "add it"
    if service.schedule:
        yield from (_needless(key, "a schedule") for key in NOT_SCHEDULED if key in given)
    elif service.port is None:
        yield "port", "port is missing", "say on which port the service listens, or give it a schedule"
    if service.host and service.expose is Expose.NONE:
        yield "host", "host has no effect while nobody outside reaches the service", "set expose, or remove host"
    if "slurm" in given:
        yield "slurm", "[slurm] has no effect on Kubernetes", 'set run_on = "slurm", or remove it'


def _on_slurm(service: Service) -> Iterator[Contradiction]:
    yield from (_needless(key, 'run_on = "slurm"') for key in NOT_ON_SLURM if key in service.model_fields_set)
    if not service.command:
        yield "command", "command is missing", "say what to start; $(PORT) in it becomes the port to listen on"
    if service.health is None:
        yield "health", "health is missing", "add a table [health] with the path that answers when the service works"
    if isinstance(service.replicas, Scale):
        yield "replicas", "jobs of Slurm do not follow the load", "write a number"
    limit_s, overlap_s = parse_duration_s(service.slurm.time_limit) or 0, service.slurm.overlap_minutes * 60
    if limit_s <= overlap_s:
        what = "a job's time_limit is not longer than the overlap with its successor"
        yield "slurm.overlap_minutes", what, "choose a longer time_limit or a shorter overlap"


def _value_contradictions(service: Service) -> Iterator[Contradiction]:
    if isinstance(service.replicas, Scale) and service.replicas.max < service.replicas.min:
        yield "replicas.max", "replicas.max is less than replicas.min", "correct one of them"
    if service.run_on is RunOn.COMMODITY and service.resources.gpus:
        yield "resources.gpus", "commodity nodes have no GPUs", 'set run_on = "gpu"'
    paths = [volume.path for volume in service.storage.values()]
    for name, volume in service.storage.items():
        if paths.count(volume.path) > 1:
            yield f"storage.{name}.path", f"two volumes at {volume.path}", "give each its own path"
    for name in service.secrets:
        if name in service.env:
            yield f"secrets.{name}", f"{name} is in env as well", "keep it in one of them"


def _needless(key: str, reason: str) -> Contradiction:
    return key, f"{key} does not go with {reason}", f"remove {key}"
