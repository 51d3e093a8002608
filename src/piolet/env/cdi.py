"""CDI, the Container Device Interface: what a device `vendor.com/class=name` brings along, as lines of a plan.

Specifications are JSON or YAML files of the vendors' tools, in /etc/cdi and /var/run/cdi; a later directory wins
(github.com/cncf-tags/container-device-interface, SPEC.md). Where nodes differ from the submitting host, each node
compiles its own beforehand (`piolet env cdi`), and plans include what it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from piolet.core.errors import ParseError, PioletError, storage_errors
from piolet.core.text import did_you_mean
from piolet.env.edf import Value
from piolet.env.lines import Line
from piolet.env.lookup import Context
from piolet.env.model import Mount, MountKind, Variable

ON_NODES = Path("/run/piolet/cdi")
"""Where a node keeps what it has compiled of its own specifications."""

_NAME = re.compile(r"(?P<kind>[A-Za-z0-9.-]+/[A-Za-z0-9_.-]+)=(?P<device>[A-Za-z0-9_.:-]+)\Z")
_KNOWN_EDITS = {"env", "deviceNodes", "mounts", "hooks", "additionalGids", "intelRdt", "netDevices"}
_REFUSED_EDITS = ("netDevices",)
_NEEDLESS_HOOKS = {
    "chmod": "modes of devices are the host's",
    "disable-device-node-modification": "only the driver's own tool reads it",
    "enable-cuda-compat": "NVIDIA's images choose compatibility libraries themselves",
}
_MOUNT_OPTIONS = {"ro": "ro", "noexec": "noexec"}
_IMPLIED_OPTIONS = {"rw", "bind", "rbind", "private", "rprivate", "nosuid", "nodev"}


@dataclass(frozen=True, slots=True)
class Edits:
    """What a device brings into a container."""

    mounts: tuple[Mount, ...] = ()
    variables: tuple[Variable, ...] = ()
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """A specification: the kind of its devices, and their edits by name, in the file's own words."""

    path: Path
    kind: str
    common: Mapping[str, Any]
    devices: Mapping[str, Mapping[str, Any]]


def is_name(text: str) -> bool:
    """Return whether `text` is the name of a CDI device."""
    return bool(_NAME.match(text))


def file_name(device: str) -> str:
    """Return the name of the file in which a node keeps the lines of `device`."""
    return f"{device.replace('/', '_')}.plan"


def edits(value: Value, by: str, context: Context) -> Edits:
    """Return what the device that `value` names brings into a container.

    Raises:
        ConfigError: no specification has it, or it asks for what cannot be given.
    """
    device = str(value.value)
    if context.settings.env.cdi_on_nodes:
        return Edits(lines=(Line(("include", str(ON_NODES / file_name(device))), value.origin),))
    kind, _, name = device.partition("=")
    try:
        known_specs = specs(context.settings.env.cdi)
        context.used.extend((*context.settings.env.cdi, *(spec.path for spec in known_specs)))
        found = [spec for spec in known_specs if spec.kind == kind]
        spec = next((spec for spec in found if name in spec.devices), None)
        if spec:
            return of_device(spec, name, by)
    except PioletError as error:
        raise value.error(f"CDI device {device}: {error.what} ({error.where})", error.remedy) from error
    known = [f"{spec.kind}={each}" for spec in found for each in spec.devices]
    where = ", ".join(map(str, context.settings.env.cdi))
    remedy = did_you_mean(device, known) if known else "if only the nodes know it: set env.cdi_on_nodes"
    raise value.error(f"no CDI device {device} in {where}", remedy)


def specs(directories: Sequence[Path]) -> tuple[Spec, ...]:
    """Return the specifications of the directories, those of later directories first."""
    paths = (path for directory in reversed(directories) for path in sorted(directory.glob("*")))
    return tuple(read(path) for path in paths if path.suffix in {".json", ".yaml", ".yml"})


def read(path: Path) -> Spec:
    """Read a specification.

    Raises:
        StorageError: the file cannot be read.
        ParseError: it is not a CDI specification.
    """
    import yaml  # noqa: PLC0415 - only environments with CDI devices need it

    with storage_errors(path, "read the CDI specification"):
        text = path.read_text("utf-8")
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
        devices = {str(each["name"]): each.get("containerEdits") or {} for each in data.get("devices") or ()}
        return Spec(path, str(data["kind"]), data.get("containerEdits") or {}, devices)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ParseError(f"not a CDI specification: {error}", source=str(path)) from error


def of_device(spec: Spec, name: str, by: str) -> Edits:
    """Return what a device of a specification brings into a container.

    Raises:
        ParseError: it asks for what cannot be given, or is not as specified.
    """
    origin = f"{spec.path} ({spec.kind}={name})"
    found = Edits()
    for given in (spec.common, spec.devices[name]):
        unknown = [key for key in given if key not in _KNOWN_EDITS or key in _REFUSED_EDITS]
        if unknown:
            raise ParseError(f"cannot honour {', '.join(unknown)}", source=str(spec.path))
        try:
            part = Edits(
                tuple(_mounts(given, origin)), tuple(_variables(given, origin)), tuple(_lines(given, by, origin))
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ParseError(f"an edit of {spec.kind}={name} is not as specified: {error!r}", source=origin) from error
        found = Edits(found.mounts + part.mounts, found.variables + part.variables, found.lines + part.lines)
    return replace(found, mounts=tuple(dict.fromkeys(found.mounts)), lines=tuple(dict.fromkeys(found.lines)))


def _mounts(given: Mapping[str, Any], origin: str) -> Iterator[Mount]:
    for node in given.get("deviceNodes") or ():
        source = node.get("hostPath") or node["path"]
        if source != node["path"] or not source.startswith("/dev/"):
            yield Mount(MountKind.BIND, source, node["path"], ("dev",), origin)
    for mount in given.get("mounts") or ():
        options = mount.get("options") or ()
        unknown = set(options) - _IMPLIED_OPTIONS - set(_MOUNT_OPTIONS)
        if unknown:
            raise ParseError(f"cannot mount with {', '.join(sorted(unknown))}", source=origin)
        flags = tuple(_MOUNT_OPTIONS[option] for option in options if option in _MOUNT_OPTIONS)
        yield Mount(MountKind.BIND, mount["hostPath"], mount["containerPath"], flags, origin)


def _variables(given: Mapping[str, Any], origin: str) -> Iterator[Variable]:
    for text in given.get("env") or ():
        name, _, value = text.partition("=")
        yield Variable(name, value, origin)


def _lines(given: Mapping[str, Any], by: str, origin: str) -> Iterator[Line]:
    for node in given.get("deviceNodes") or ():
        yield Line(("require", by, "path", node["path"]), origin)
    for hook in given.get("hooks") or ():
        yield from _hook_lines(hook, origin)


def _hook_lines(hook: Mapping[str, Any], origin: str) -> Iterator[Line]:
    """Yield what a hook of NVIDIA's tools does: `nvidia-ctk hook NAME ...` or `nvidia-cdi-hook NAME ...`."""
    words = [str(word) for word in hook.get("args") or ()][1:]
    name = next((word for word in words if word != "hook"), "")
    options = list(_options(words[words.index(name) + 1 :])) if name else []
    if name == "create-symlinks":
        for text, _, path in (value.partition("::") for option, value in options if option == "--link"):
            yield Line(("symlink", text, path), origin)
    elif name == "update-ldcache":
        for folder in (value for option, value in options if option == "--folder"):
            yield Line(("ldcache", folder), origin)
    elif name not in _NEEDLESS_HOOKS:
        raise ParseError(f"does not know the hook {hook.get('path')} {name}".rstrip(), source=origin)


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield options with their values, written as `--option=value` or as two words."""
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        yield option, value if equals else next(rest, "")
