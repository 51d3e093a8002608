"""From the name of an environment to its container plan.

Later EDFs win: scalars, variables and annotations one by one; mounts and devices append. Then references are
expanded, once. What cannot be honoured is refused, never dropped in silence.
"""

from __future__ import annotations

import grp
import os
import posixpath
import pwd
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from piolet.core.errors import ConfigError
from piolet.core.problems import kept, raise_all
from piolet.core.run import Runner, SystemRunner
from piolet.core.settings import Settings
from piolet.env import gate, hooks, lines, lookup, mounts, pins
from piolet.env import image as image_files
from piolet.env.edf import Edf, Value
from piolet.env.expanding import ExpansionError, expand
from piolet.env.hooks import Additions
from piolet.env.lines import Line
from piolet.env.model import Image, Mount, Text, Variable
from piolet.env.plan import ContainerPlan

# Of the host's locale, since the image may not have it.
HOST_ONLY = ("LANG", "LANGUAGE", "LC_ALL")
OWN = "environment"
"""Who asks for what no hook asks for, in lines of the plan."""


@dataclass(frozen=True, slots=True)
class Merged:
    """An environment and all it builds on, flattened, not yet expanded."""

    images: Mapping[str, Value]
    scalars: Mapping[str, Value]
    mounts: tuple[Value, ...]
    devices: tuple[Value, ...]
    env: Mapping[str, Value]
    annotations: Mapping[str, Value]
    starts: tuple[Value, ...]
    requires: tuple[Value, ...]

    @property
    def writable(self) -> bool:
        """Whether programs may write to the root."""
        return "writable" not in self.scalars or bool(self.scalars["writable"].value)


def compile_environment(
    name: str,
    *,
    environ: Mapping[str, str],
    cwd: Path,
    settings: Settings,
    runner: Runner | None = None,
    fetch: bool = True,
) -> ContainerPlan:
    """Resolve the environment `name` (or path) for a caller with these variables, in this directory.

    An image of a registry that is not in the store is imported first, here and now, unless `fetch` is false: then the
    plan only names it, and no node would run it.

    Raises:
        UsageError, ConfigError: not found, wrong, or asking for what cannot be honoured; file, line and remedy
            are in the message, and all problems come at once.
        ToolMissing: `unsquashfs` is not installed.
    """
    context = lookup.Context(environ, cwd, settings)
    return compile_found(lookup.find(name, context), context, runner, fetch=fetch)


def compile_found(
    path: Path, context: lookup.Context, runner: Runner | None = None, *, fetch: bool = True
) -> ContainerPlan:
    """Resolve the environment of the EDF file at `path`; see `compile_environment`."""
    edfs = lookup.chain(path, context)
    return _planned(edfs[-1], merge(edfs), context, runner or SystemRunner(), fetch=fetch)


def merge(edfs: Iterable[Edf]) -> Merged:
    """Flatten EDFs, each after those it builds on."""
    images: dict[str, Value] = {}
    scalars: dict[str, Value] = {}
    env: dict[str, Value] = {}
    annotations: dict[str, Value] = {}
    mount_values: dict[str, Value] = {}
    devices: dict[str, Value] = {}
    starts: list[Value] = []
    requires: list[Value] = []
    for edf in edfs:
        images |= edf.images
        scalars |= edf.scalars
        env |= edf.env
        annotations |= edf.annotations
        for value in edf.mounts:
            mount_values.setdefault(value.value, value)
        for value in edf.devices:
            devices.setdefault(value.value, value)
        starts += edf.starts
        requires += edf.requires
    own_lists = tuple(mount_values.values()), tuple(devices.values())
    return Merged(images, scalars, *own_lists, env, annotations, tuple(starts), tuple(requires))


def _planned(top: Edf, merged: Merged, context: lookup.Context, runner: Runner, *, fetch: bool) -> ContainerPlan:
    problems: list[ConfigError] = []
    own = _own(merged, context, problems)
    added = hooks.additions(merged.annotations, context, writable=merged.writable, problems=problems)
    workdir, overlay, image = "", "", None
    with kept(problems):
        overlay = _overlay(merged, context)
    with kept(problems):
        workdir = _workdir(merged, context)
    with kept(problems):  # last, and not at all if the rest is wrong: nobody waits for an import that is of no use
        image = _image(top, merged, context, runner, fetch=fetch and not problems)
    raise_all(problems, "the environment")
    if image is None:
        raise _no_image(top)
    image_variables = image_files.variables(image, runner)
    added += hooks.additions_for_image(
        merged.annotations, context, writable=merged.writable, image_variables=image_variables
    )
    return ContainerPlan(
        name=top.path.stem,
        image=image,
        writable=merged.writable,
        workdir=workdir or (image.stored.workdir if image.stored and "workdir" not in merged.scalars else ""),
        mounts=(*mounts.SYSTEM, *_site_mounts(context), *added.mounts, *own.mounts),
        variables=_variables(image_variables, added.variables, own.variables),
        texts=tuple(_identity()),
        lines=(*added.lines, *own.lines, *_entrypoint(merged, image, runner)),
        overlay=overlay,
        origins=_origins(merged, image),
    )


def _own(merged: Merged, context: lookup.Context, problems: list[ConfigError]) -> Additions:
    """Return what the EDF itself asks for; what is wrong goes to `problems`."""
    own = Additions()
    for value in merged.devices:
        with kept(problems):
            expanded = replace(value, value=expand(value, context.environ))
            own += hooks.device(expanded, OWN, context)
    for value in merged.mounts:
        with kept(problems):
            own += Additions(mounts=(image_files.mount(value, context, context.environ),))
    for name, value in merged.env.items():
        with kept(problems):
            own += Additions(variables=(Variable(name, expand(value, context.environ) or None, value.origin),))
    for value in merged.requires:
        with kept(problems):
            own += Additions(lines=tuple(lines.requirements(value, OWN, context.environ)))
    for value in merged.starts:
        with kept(problems):
            own += Additions(lines=(lines.commands(value, OWN, context.environ),))
    return own


def _entrypoint(merged: Merged, image: Image, runner: Runner) -> tuple[Line, ...]:
    value = merged.scalars.get("entrypoint")
    if not value or not value.value:
        return ()
    words = image_files.entrypoint(image, runner)
    if words is None:
        raise value.error(
            "entrypoint = true: the image does not say what its entrypoint is",
            "import it from its registry, or call the entrypoint's script in your command",
        )
    return (Line(("entrypoint", *words), f"image {image.shown()}"),) if words else ()


def _origins(merged: Merged, image: Image) -> dict[str, str]:
    of_image = {"workdir": f"image {image.stored.name}"} if image.stored and image.stored.workdir else {}
    return of_image | {key.partition(".")[0]: value.origin for key, value in merged.scalars.items()}


def _image(top: Edf, merged: Merged, context: lookup.Context, runner: Runner, *, fetch: bool) -> Image:
    architecture = context.settings.env.arch or os.uname().machine
    value = merged.images.get(architecture)
    if value is None and merged.images:
        raise _no_image_for(architecture, merged)
    text = expand(value, context.environ) if value else ""
    if value is None or not text:
        raise _no_image(top, value)
    context.used.append(pins.path_of(top.path))
    pinned = pins.pinned(top.path, value, image_files.tagged(value, text), architecture)
    image = image_files.resolve(value, text, context, pinned, fetch=fetch)
    if fetch:
        gate.check(image, value, context, runner)
    return image


def _no_image_for(architecture: str, merged: Merged) -> ConfigError:
    others = ", ".join(sorted(merged.images))
    return next(iter(merged.images.values())).error(
        f"the environment has no image for {architecture}, only for {others}",
        f"give image.{architecture}, or say what the nodes are: --arch, or the setting env.arch",
    )


def _no_image(top: Edf, value: Value | None = None) -> ConfigError:
    what, remedy = "the environment has no image", 'give one: image = "REGISTRY/IMAGE:TAG", or "/path/to/image.sqsh"'
    return value.error(what, remedy) if value else ConfigError(what, path=top.path, key="image", remedy=remedy)


def _workdir(merged: Merged, context: lookup.Context) -> str:
    value = merged.scalars.get("workdir")
    text = expand(value, context.environ) if value else ""
    if value is None or not text:
        return ""
    if not text.startswith(("/", "./")):
        raise value.error(f"workdir {text!r} is not an absolute path", "write an absolute path, or ./path")
    return posixpath.normpath(context.cwd / text)


def _overlay(merged: Merged, context: lookup.Context) -> str:
    """Return how much programs may write to the root, or where to, in the plan's words."""
    given = [merged.scalars[key] for key in ("overlay.size", "overlay.directory") if key in merged.scalars]
    if not given:
        return ""
    value, text = given[-1], expand(given[-1], context.environ)
    if len(given) > 1:
        raise value.error("an overlay has a size in memory or a directory, not both", "remove one of them")
    if not merged.writable:
        raise value.error("a root that is not writable has no overlay to set", "set writable = true, or remove it")
    if value.key == "overlay.size":
        if not mounts.is_size(text):
            raise value.error(f"{text!r} is not a size", "write a number with k, m, g or %")
        return f"size={text.lower()}"
    if not text.startswith(("/", "./")):
        raise value.error(f"{text!r} is not an absolute path", "write an absolute path, or ./path")
    return f"directory={posixpath.normpath(context.cwd / text)}"


def _site_mounts(context: lookup.Context) -> Iterator[Mount]:
    for text in context.settings.env.mounts:
        try:
            yield image_files.identified(mounts.parse(text, Path("/"), "setting env.mounts"))
        except ExpansionError as error:
            raise ConfigError(str(error), path="setting env.mounts", key="env.mounts", remedy=error.remedy) from error


def _variables(*given: Iterable[Variable]) -> tuple[Variable, ...]:
    """Order of precedence, lowest first: the host's (here only what is dropped), the image's, the hooks', the EDF's."""
    found = {name: Variable(name, None, "the host's locale is not the image's") for name in HOST_ONLY}
    for variables in given:
        found |= {variable.name: variable for variable in variables}
    return tuple(found.values())


def _identity() -> Iterator[Text]:
    """The user and the primary group, for images that do not know them; before what the image says.

    The user's other groups open files as ever, and in the container all of them look like the kernel's overflow group:
    a user may map no group but the primary one.
    """
    uid, gid = os.getuid(), os.getgid()
    others = "nogroup:x:65534:\n" if set(os.getgroups()) - {gid} else ""
    try:
        user = pwd.getpwuid(uid)
        line = f"{user.pw_name}:x:{uid}:{gid}:{user.pw_gecos}:{user.pw_dir}:{user.pw_shell or '/bin/sh'}\n"
        yield Text("/etc/passwd", line, "the user's identity")
        yield Text("/etc/group", f"{grp.getgrgid(gid).gr_name}:x:{gid}:\n{others}", "the user's identity")
    except KeyError:  # an identity without a name on this host has none in the container either
        return
