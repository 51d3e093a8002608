"""Every setting there is: name, type, default, description, and how it is read from what a user wrote.

Plain dataclasses with a reader a field, since every command loads them: nothing slow is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")
Reader = Callable[[Any], Any]
"""Turns a value of TOML, of the environment or of a flag into the setting's; a ValueError says what it must be."""


def text(value: object) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004 - readers raise one kind of error
    return value


def address(value: object) -> str:
    """Read HOST:PORT, or nothing."""
    host, _, port = text(value).rpartition(":")
    if value and not (host and port.isdigit()):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:9418")
    return text(value)


def path(value: object) -> Path:
    """Read a path."""
    if not isinstance(value, str | Path):
        raise ValueError("must be a string: a path")  # noqa: TRY004 - same
    return Path(value)


def listed(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """Return a reader of an array whose elements `read` reads."""

    def elements(value: object) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError("must be an array of strings")  # noqa: TRY004 - same
        return tuple(read(element) for element in value)

    return elements


texts = listed(text)
paths = listed(path)


def number(*, least: float = float("-inf"), most: float = float("inf"), above: float | None = None) -> Reader:
    """Return a reader of a number from `least` to `most`, and greater than `above`."""

    def read(value: object) -> float:
        try:
            found = float(cast("Any", value))
        except (TypeError, ValueError) as error:
            raise ValueError("must be a number") from error
        if isinstance(value, bool) or not least <= found <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        if above is not None and not found > above:
            raise ValueError(f"must be greater than {above:g}")
        return found

    return read


def count(value: object) -> int:
    """Read a whole number that is not negative."""
    try:
        found = int(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise ValueError("must be a whole number, 0 or more")
    return found


def switch(value: object) -> bool:
    """Read true or false."""
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise ValueError("must be true or false")
    return found


def one_of(*words: str) -> Callable[[Any], str]:
    """Return a reader of one of `words`."""

    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return read


SAMPLED = ("gpu", "host", "nic", "fs", "proc", "cgroup", "energy", "clock", "inventory")
"""The families of samples that have a rate."""

MOST_HZ, LEAST_HZ = 10, Fraction(1, 3600)
"""On Hopper the counters of a GPU say nothing below 100 ms."""


def rate(word: str) -> tuple[str, Fraction]:
    """Return the family and the samples a second of a word such as ``gpu=10`` or ``inventory=1/60``."""
    family, _, text = word.strip().partition("=")
    try:
        hertz = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError("must be of the form FAMILY=HZ, such as gpu=10 or inventory=1/60") from error
    if family not in SAMPLED:
        raise ValueError(f"must name one of {', '.join(SAMPLED)}")
    if not LEAST_HZ <= hertz <= MOST_HZ:
        raise ValueError(f"must be from {LEAST_HZ} to {MOST_HZ} samples a second")
    return family, hertz


def rates(value: object) -> tuple[str, ...]:
    """Read an array of rates."""
    words = texts(value)
    for word in words:
        rate(word)
    return words


def setting(default: T, read: Reader, description: str) -> T:
    """Return the field of a setting."""
    return field(default=default, metadata={"read": read, "description": description})


@dataclass(frozen=True, slots=True)
class EnvSettings:
    """User environments."""

    search_path: tuple[Path, ...] = setting((), paths, "directories with EDF files, after the user's own")
    images: Path | None = setting(None, path, "directory of image names, for EDFs that give a bare file name")
    store: Path | None = setting(
        None, path, "directory of imported images, which nodes see; none: images below the root of the logbooks"
    )
    gate: tuple[str, ...] = setting(
        (), texts, "command that an image must pass before it is used; the image's path is added to its words"
    )
    import_timeout_s: float = setting(
        7200.0, number(above=0), "seconds to wait for another process's import of an image"
    )
    mounts: tuple[str, ...] = setting((), texts, "mounts that the site adds to every container")
    runtime: str = setting("piolet", one_of("piolet", "podman"), "what `piolet env run` makes containers with")
    hooks: tuple[str, ...] = setting((), texts, "hooks that are on in every environment that does not switch them off")
    hooks_path: tuple[Path, ...] = setting(
        (Path("/etc/piolet/hooks.d"),), paths, "directories with hooks of the site, before those that are shipped"
    )
    cdi: tuple[Path, ...] = setting(
        (Path("/etc/cdi"), Path("/var/run/cdi")), paths, "directories with CDI specifications; later ones win"
    )
    cdi_on_nodes: bool = setting(
        default=False, read=switch, description="CDI devices are what each node has compiled with `piolet env cdi`"
    )
    arch: str | None = setting(
        None,
        one_of("aarch64", "x86_64"),
        "architecture of the nodes, for EDFs with an image for each; none: that of this machine",
    )


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What `piolet run` asks of Slurm when the command line does not say."""

    partition: str = setting("", text, "partition to submit to; empty for Slurm's default")
    account: str = setting("", text, "account to charge; empty for Slurm's default")
    time_limit: str = setting("", text, "time limit in Slurm's form; empty for the partition's default")
    gpus_per_node: int | None = setting(None, count, "GPUs to ask for on each node; none asks for all")
    hang_s: float = setting(
        120.0, number(above=0), "seconds that GPUs wait and none works, after which a hang is suspected"
    )
    hang_grace_s: float = setting(60.0, number(least=0), "seconds that a suspected hang must go on to end the program")
    node_mtbf_hours: float = setting(
        3700.0, number(above=0), "mean hours between failures of a node; 6.5 failures in 1000 node-days, as published"
    )
    restart_delay_s: float = setting(60.0, number(least=0), "seconds before a job is tried again; twice that each time")


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """The recorder."""

    interval_s: float = setting(1.0, number(least=0.1, most=60), "seconds between samples")
    rates: tuple[str, ...] = setting(
        (), rates, 'families with a rate of their own, in samples a second: ["gpu=10", "inventory=1/60"]'
    )
    flush_s: float = setting(5.0, number(least=1, most=300), "seconds of samples that a kill may lose")
    kernel_log: Path = setting(Path("/dev/kmsg"), path, "kernel log to read Xid messages from")
    metrics: str = setting(
        "", address, "HOST:PORT at which the recorder serves /metrics to Prometheus on each node; empty: nowhere"
    )
    dcgm: str = setting("auto", text, "DCGM for GPUs without GPM: auto, off, or the address of a dcgm-exporter")


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The operators' centre."""

    database: str = setting(
        "/var/lib/piolet/fleet.db", text, "SQLite file of the fleet's ledger, or postgresql://USER@HOST/DATABASE"
    )
    policy: Path | None = setting(None, path, "rules and limits (TOML); none: the shipped policy")
    service: str = setting("", text, "address of `piolet fleet serve`, for orders and for nodes that report")
    token: Path | None = setting(None, path, "file with the token for the service; none: nodes show a munge credential")
    authority: Path | None = setting(None, path, "file with the certificate of who signed the service's")
    spool: Path = setting(
        Path("/var/spool/piolet/fleet"), path, "where a node keeps reports that are not delivered yet"
    )
    certificate: Path | None = setting(None, path, "file with the TLS certificate chain; none: no TLS, loopback only")
    key: Path | None = setting(None, path, "file with the private key of the certificate")
    munge_socket: Path | None = setting(None, path, "socket of munged; none: its usual one")
    jwt_key: Path | None = setting(
        None, path, "Slurm's key of JSON Web Tokens (AuthAltParameters), to take them as well"
    )
    node_users: tuple[str, ...] = setting(("root", "slurm"), texts, "users whose munge or JWT credentials nodes show")
    requests_per_minute: int = setting(6000, count, "requests that one reporter may make in a minute")


@dataclass(frozen=True, slots=True)
class VetSettings:
    """Vetting of nodes."""

    protocol_path: tuple[Path, ...] = setting((), paths, "directories with protocols of the site")
    timeout_s: float = setting(60.0, number(above=0), "seconds after which a silent node is unknown")


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Security."""

    policy: Path | None = setting(None, path, "policy of `piolet guard`: what fails, warns and is allowed")
    osv: Path | None = setting(None, path, "directory of OSV advisories for `piolet guard image`")


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Storage for machine learning."""

    storage: Path | None = setting(None, path, "file that describes the site's file systems: tiers, quotas, purge")
    local_directory: Path = setting(
        Path("/dev/shm"),  # noqa: S108 - each node's own
        path,
        "memory or disk of each node's own, for `piolet run --stage` without a place",
    )
    transfer_partition: str = setting("", text, "partition for `piolet data move`; empty for that of runs")


@dataclass(frozen=True, slots=True)
class LabSettings:
    """The virtual cluster."""

    directory: Path = setting(Path("/var/lib/piolet/lab"), path, "where labs keep their files")


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The service plane."""

    platform: Path = setting(
        Path("/etc/piolet/platform.toml"), path, "file with what the site's service platform has and allows"
    )


@dataclass(frozen=True, slots=True)
class WebSettings:
    """The web application."""

    login: str = setting(
        "token",
        one_of("token", "pam", "oidc", "proxy"),
        "how people log in: a one-time link, the system's passwords, an OpenID provider, a proxy in front",
    )
    operators: tuple[str, ...] = setting((), texts, "users and @groups who see every job")
    hosts: tuple[str, ...] = setting((), texts, "names by which browsers reach the server, beside localhost")
    pam_service: str = setting("login", text, "PAM service that checks passwords")
    oidc_issuer: str = setting("", text, "address of the OpenID provider")
    oidc_client: str = setting("", text, "client id at the OpenID provider")
    oidc_user_claim: str = setting("preferred_username", text, "claim with the user's name on the cluster")
    oidc_groups_claim: str = setting("groups", text, "claim with the user's groups")
    secret: Path | None = setting(None, path, "file with the secret shared with the OpenID provider or the proxy")
    certificate: Path | None = setting(None, path, "file with the TLS certificate chain; none: no TLS, loopback only")
    key: Path | None = setting(None, path, "file with the private key of the certificate")
    requests_per_minute: int = setting(1200, count, "requests that one visitor may make in a minute")
    logins_per_minute: int = setting(10, count, "attempts to log in that one address or user may make in a minute")


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting there is."""

    root: Path | None = setting(
        None, path, "root of all logbooks; none: $SCRATCH/piolet, else the user's data directory"
    )
    cluster: str = setting("", text, "name of the cluster in logbook paths; empty asks Slurm")
    env: EnvSettings = EnvSettings()
    run: RunSettings = RunSettings()
    record: RecordSettings = RecordSettings()
    fleet: FleetSettings = FleetSettings()
    vet: VetSettings = VetSettings()
    guard: GuardSettings = GuardSettings()
    data: DataSettings = DataSettings()
    lab: LabSettings = LabSettings()
    service: ServiceSettings = ServiceSettings()
    web: WebSettings = WebSettings()


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a setting."""

    read: Reader
    description: str


def known() -> dict[str, Known]:
    """Return every setting by its dotted key, in the order of definition."""
    found: dict[str, Known] = {}
    for outer in fields(Settings):
        if is_dataclass(outer.default):
            found |= {f"{outer.name}.{inner.name}": Known(**inner.metadata) for inner in fields(outer.default)}
        else:
            found[outer.name] = Known(**outer.metadata)
    return found


def made(values: Mapping[str, Any]) -> Settings:
    """Return the settings with `values`, which readers have read, by dotted key."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section, {})[name] = value
    top = sections.pop("", {})
    defaults = Settings()
    return Settings(**top, **{name: type(getattr(defaults, name))(**given) for name, given in sections.items()})
