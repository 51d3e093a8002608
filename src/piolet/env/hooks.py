"""From the annotations of an EDF to what its hooks add to the plan. An enabled hook never does nothing in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from piolet.core.errors import ConfigError
from piolet.core.native import DIRECTORY
from piolet.core.problems import kept
from piolet.core.text import did_you_mean
from piolet.env import cdi, lines
from piolet.env import image as image_files
from piolet.env.edf import Value
from piolet.env.hook_files import Hook, all_hooks
from piolet.env.lines import Line
from piolet.env.lookup import Context
from piolet.env.model import Mount, Variable

PREFIXES = ("com.hooks.", "com.pyxis.")
OFF = {"false", "0", "no", "off"}
OPTIONAL = "?"
NATIVE = "piolet_native"
"""What hooks call the directory of Piolet's own compiled parts, the Slurm plugin among them."""


@dataclass(frozen=True, slots=True)
class Enabled:
    """A hook that is on, with the values of its keys. `by` is what switched it on."""

    hook: Hook
    keys: Mapping[str, str]
    by: Value | None


@dataclass(frozen=True, slots=True)
class Additions:
    """What hooks and devices add to a plan."""

    mounts: tuple[Mount, ...] = ()
    variables: tuple[Variable, ...] = ()
    lines: tuple[Line, ...] = ()
    names: tuple[str, ...] = ()

    def __add__(self, other: Additions) -> Additions:
        return Additions(
            (*self.mounts, *other.mounts),
            (*self.variables, *other.variables),
            (*self.lines, *other.lines),
            (*self.names, *other.names),
        )


def additions(
    annotations: Mapping[str, Value], context: Context, *, writable: bool, problems: list[ConfigError]
) -> Additions:
    """Return what the hooks of an environment add; what is wrong with them goes to `problems`.

    Hooks of the site that depend on the image are left to `additions_for_image`.
    """
    found = Additions()
    for enabled in _chosen(annotations, context, problems):
        with kept(problems):
            if enabled.by or not _image_variable(enabled.hook):
                found += _of_hook(enabled, context, writable=writable)
    return found


def additions_for_image(
    annotations: Mapping[str, Value], context: Context, *, writable: bool, image_variables: Sequence[Variable]
) -> Additions:
    """Return what those hooks of the site add that are for images with a certain variable."""
    problems: list[ConfigError] = []
    names, found = {variable.name for variable in image_variables}, Additions()
    for enabled in _chosen(annotations, context, problems):
        if enabled.by is None and _image_variable(enabled.hook) in names:
            found += _of_hook(enabled, context, writable=writable)
    return found


def _chosen(annotations: Mapping[str, Value], context: Context, problems: list[ConfigError]) -> list[Enabled]:
    wanted = {name: value for name, value in annotations.items() if name.startswith(PREFIXES)}
    if not wanted and not context.settings.env.hooks:
        return []
    try:
        known = all_hooks(context)
    except ConfigError as error:
        problems.append(error)
        return []
    problems += _unknown(wanted, known)
    return list(_enabled(wanted, known, context, problems))


def _image_variable(hook: Hook) -> str:
    return str(hook.data.get("when", {}).get("image_variable", ""))


def _unknown(wanted: Mapping[str, Value], known: Sequence[Hook]) -> Iterator[ConfigError]:
    names = {name for hook in known for name in (hook.switch, *hook.annotations)}
    for name, value in wanted.items():
        if name not in names:
            yield value.error(f'no hook knows the annotation "{name}"', did_you_mean(name, names))


def _enabled(
    wanted: Mapping[str, Value], known: Sequence[Hook], context: Context, problems: list[ConfigError]
) -> Iterator[Enabled]:
    """Yield the hooks that are on: switched on, configured without being switched, implied, or the site's."""
    by_switch = {hook.switch: hook for hook in known}
    chosen: dict[str, tuple[Hook, Value | None]] = {
        hook.name: (hook, by) for hook in known if (by := _switched_by(hook, wanted))
    }
    for name in context.settings.env.hooks:
        hook = next((hook for hook in known if hook.name == name), None)
        if hook is None:
            remedy = did_you_mean(name, [hook.name for hook in known])
            problems.append(ConfigError(f'no hook "{name}"', path="setting env.hooks", key="env.hooks", remedy=remedy))
        elif not _is_off(hook, wanted):
            chosen.setdefault(hook.name, (hook, None))
    pending = [hook for hook, _ in chosen.values()]
    while pending:
        hook = pending.pop()
        for annotation in hook.data.get("implies", ()):
            implied = by_switch.get(f"{annotation}.enabled") or by_switch.get(annotation)
            if implied and implied.name not in chosen and not _is_off(implied, wanted):
                chosen[implied.name] = (implied, chosen[hook.name][1])
                pending.append(implied)
    for hook, by in chosen.values():
        with kept(problems):
            yield Enabled(hook, _keys(hook, wanted, by, context), by)


def _switched_by(hook: Hook, wanted: Mapping[str, Value]) -> Value | None:
    """Return the annotation that switches the hook on; configuring one switches it on, `false` always wins."""
    if _is_off(hook, wanted):
        return None
    return next((wanted[name] for name in (hook.switch, *hook.annotations) if name in wanted), None)


def _is_off(hook: Hook, wanted: Mapping[str, Value]) -> bool:
    switch = wanted.get(hook.switch)
    return switch is not None and switch.value.lower() in OFF


def _keys(hook: Hook, wanted: Mapping[str, Value], by: Value | None, context: Context) -> dict[str, str]:
    found = {}
    for annotation, key in hook.annotations.items():
        spec = hook.data["keys"][key]
        value = wanted.get(annotation)
        if value is None and "default" not in spec:
            raise _missing(hook, annotation, by)
        text = lines.expand_text(value, value.value, context.environ) if value else spec["default"]
        if value and "choices" in spec and text not in spec["choices"]:
            raise value.error(f'{annotation} cannot be "{text}"', did_you_mean(text, spec["choices"]))
        found[key] = _path(value, text, context) if value and spec.get("path") else text
    return found


def _missing(hook: Hook, annotation: str, by: Value | None) -> ConfigError:
    what, remedy = f"hook {hook.name} needs the annotation {annotation}", f'give it, or {hook.switch} = "false"'
    return by.error(what, remedy) if by else ConfigError(what, path="setting env.hooks", key=annotation, remedy=remedy)


def _path(value: Value, text: str, context: Context) -> str:
    path = context.cwd / Path(text).expanduser()
    context.used.append(path)
    if not path.exists():
        raise value.error(f"no such file: {path}", "check the path")
    return str(path)


def _of_hook(enabled: Enabled, context: Context, *, writable: bool) -> Additions:
    hook, environ = enabled.hook, _Over({**enabled.keys, NATIVE: str(DIRECTORY)}, context.environ)
    architecture = context.settings.env.arch or os.uname().machine
    if architecture not in hook.data.get("when", {}).get("architectures", [architecture]):
        if enabled.by is None:
            return Additions()
        raise enabled.by.error(f"hook {hook.name} is not for {architecture}", "switch it off")
    if hook.data.get("writable") and not writable:
        what, remedy = f"hook {hook.name} needs a writable container", "set writable = true, or switch the hook off"
        raise (
            enabled.by.error(what, remedy)
            if enabled.by
            else ConfigError(what, path="setting env.hooks", key="writable", remedy=remedy)
        )
    found = Additions(
        mounts=tuple(image_files.mount(value, context, environ) for value in hook.values("mounts")),
        variables=tuple(_variables(hook, environ)),
        lines=tuple(_lines(hook, environ)),
        names=(hook.name,),
    )
    for value in hook.values("devices"):
        found += device(replace(value, value=lines.expand_text(value, value.value, environ)), hook.name, context)
    return found


def _variables(hook: Hook, environ: Mapping[str, str]) -> Iterator[Variable]:
    for value in hook.values("env"):
        name = value.key.removeprefix("env.")
        yield Variable(name, lines.expand_text(value, value.value, environ) or None, value.origin)


def _lines(hook: Hook, environ: Mapping[str, str]) -> Iterator[Line]:
    for kind, field_name in (("library", "libraries"), ("program", "programs")):
        for value in hook.values(field_name):
            name = lines.expand_text(value, value.value, environ)
            flag = "optional" if name.endswith(OPTIONAL) else "-"
            yield Line((kind, hook.name, name.removesuffix(OPTIONAL), flag), value.origin)
    for value in hook.values("derive"):
        rule, _, source = value.value.rpartition(" ")
        yield Line(("derive", value.key.removeprefix("derive."), rule or "copy", source), value.origin)
    for value in hook.values("require"):
        yield from lines.requirements(value, hook.name, environ)
    for value in hook.values("start"):
        yield lines.commands(value, hook.name, environ)
    for value in hook.values("stop"):
        yield lines.commands(value, hook.name, environ, stop=True)


class _Over(Mapping[str, str]):
    """Variables with a hook's keys over them; only those that are asked for are looked at."""

    def __init__(self, keys: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._keys, self._environ = keys, environ

    def __getitem__(self, name: str) -> str:
        return self._keys[name] if name in self._keys else self._environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter({*self._keys, *self._environ})

    def __len__(self) -> int:
        return len({*self._keys, *self._environ})


def device(value: Value, by: str, context: Context) -> Additions:
    """Return what one device asks for: a path below /dev must be there, a CDI name is what its specification says."""
    if value.value.startswith("/dev/"):
        return Additions(lines=(Line(("require", by, "path", value.value), value.origin),))
    if not cdi.is_name(value.value):
        raise value.error(f'device "{value.value}" is neither a path below /dev nor a CDI name', "write /dev/NAME")
    if context.settings.env.runtime == "podman":  # which reads the specifications itself
        return Additions(lines=(Line(("cdi", value.value), value.origin),))
    edits = cdi.edits(value, by, context)
    return Additions(edits.mounts, edits.variables, edits.lines)
