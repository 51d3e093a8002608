"""Reading protocols: YAML as users know it, compiled into what nodes run. Strict: nothing wrong gets past here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from piolet.core.errors import ConfigError
from piolet.core.settings import Settings
from piolet.core.text import did_you_mean
from piolet.core.toml import Document
from piolet.logbook import layout
from piolet.vet import entry as keys
from piolet.vet import vetnode, yamlfile
from piolet.vet.catalogue import check_types, find_protocol, registered
from piolet.vet.check import Check
from piolet.vet.entry import Entry
from piolet.vet.protocol import DEFAULT_TIMEOUT_S, PlannedCheck, Protocol

_TOP_LEVEL = ("name", "include", "budget", "evals", *vetnode.TOP_LEVEL)
_MAX_DEPTH = 10


def load_protocol(name: str, settings: Settings) -> Protocol:
    """Find, read and compile the protocol `name` (a path if it holds a slash, else NAME.yaml of the search path).

    Raises:
        ConfigError: anything in it is not as it must be; the message names file, line and remedy.
        UsageError: there is no such protocol.
        StorageError: it cannot be read.
    """
    path = find_protocol(name, settings)
    document = yamlfile.read(path)
    checks = tuple(_checks(document, settings, depth=0).values())
    budget_s = _budget_s(document)
    left_out: tuple[PlannedCheck, ...] = ()
    if budget_s is not None or any(check.criteria and check.criteria.history for check in checks):
        from piolet.vet import budget, history  # noqa: PLC0415 - they load what reads logbooks

        found = tuple(history.past(layout.root(settings)))
        checks = history.remembered(checks, found)
        if budget_s is not None:
            checks, left_out = budget.chosen(checks, budget_s, history.records_of(found))
    if not checks:
        raise document.error("the budget is too small for any check", "budget", remedy="give it more seconds")
    title = document.data.get("name", path.stem)
    names = tuple(check.name for check in left_out)
    return Protocol(title, checks, str(path), str(settings.record.kernel_log), names)


def _budget_s(document: Document) -> float | None:
    value = document.data.get("budget")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise document.error(f"the budget cannot be {value!r}", "budget", remedy="write seconds, such as `budget: 60`")
    return value


def _checks(document: Document, settings: Settings, *, depth: int) -> dict[str, PlannedCheck]:
    """Return the checks of a file by name; its own stand for those of the same name in files that it includes."""
    _check_top_level(document)
    included: dict[str, PlannedCheck] = {}
    for name in _included(document, depth):
        path = find_protocol(_beside(name, document), settings)
        included |= _checks(yamlfile.read(path), settings, depth=depth + 1)
    return included | _own_checks(document, needed=not included)


def _included(document: Document, depth: int) -> list[str]:
    value = document.data.get("include", [])
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise document.error("include is not a list of protocols", "include", remedy="write `include: [quick]`")
    if names and depth >= _MAX_DEPTH:
        raise document.error("protocols include each other without end", "include", remedy="take one of them out")
    return names


def _beside(name: str, document: Document) -> str:
    """Return a path that begins with a dot as seen from the file that includes it."""
    return str(Path(document.path).parent / name) if name.startswith(".") else name


def _check_top_level(document: Document) -> None:
    for key in document.data:
        if key not in _TOP_LEVEL:
            raise document.error(f'unknown key "{key}"', key, remedy=did_you_mean(key, _TOP_LEVEL))
    name = document.data.get("name", Path(document.path).stem)
    if not isinstance(name, str) or not name:
        raise document.error("the name of the protocol is not text", "name", remedy="put it in quotes")


def _own_checks(document: Document, *, needed: bool) -> dict[str, PlannedCheck]:
    if not needed and "evals" not in document.data:
        return {}
    checks: dict[str, PlannedCheck] = {}
    for entry in _entries(document):
        for check in _compiled(entry):
            if check.name in checks:
                raise entry.error(f'two checks are called "{check.name}"', remedy="give each a `name` of its own")
            checks[check.name] = check
    return checks


def _entries(document: Document) -> Iterator[Entry]:
    evals = document.data.get("evals")
    if not isinstance(evals, list) or not evals:
        what = "the protocol has no checks" if evals in (None, [], {}) else "`evals` is not a list"
        raise document.error(what, "evals", remedy="list them: `evals: [{name: ..., type: gpu_count}]`")
    for index, values in enumerate(evals):
        key = f"evals[{index}]"
        if not isinstance(values, dict) or not isinstance(values.get("type"), str):
            raise document.error("an entry has no `type`", key, remedy=f"one of: {', '.join(check_types())}")
        yield Entry(document, key, values)


def _compiled(entry: Entry) -> Iterator[PlannedCheck]:
    check_type = entry.values["type"]
    name = entry.values.get("name", check_type)
    if not isinstance(name, str) or not name:
        raise entry.error("the name of a check is not text", "name", remedy="put it in quotes")
    if check_type.startswith(vetnode.PREFIX):
        checks = _translated(entry)
        for ours, parameters in checks.items():
            yield _planned(entry, f"{name} ({ours})" if len(checks) > 1 else name, ours, parameters)
    else:
        yield _planned(entry, name, check_type, {each: (each, value) for each, value in entry.parameters.items()})


def _translated(entry: Entry) -> dict[str, dict[str, tuple[str, Any]]]:
    """Return the checks that an entry of vetnode stands for, with (name in the file, value) of each parameter."""
    theirs = entry.values["type"]
    if theirs not in vetnode.EQUIVALENTS:
        _refuse(entry, theirs)
    known = vetnode.EQUIVALENTS[theirs]
    for name in entry.parameters:
        if name not in known:
            raise entry.error(f'{theirs} has no parameter "{name}"', name, remedy=did_you_mean(name, known))
    refused = vetnode.refused_value(theirs, entry.parameters)
    if refused:
        raise entry.error(f"{theirs} cannot be taken as it is: {refused}", remedy="write `method: allreduce`")
    checks: dict[str, dict[str, tuple[str, Any]]] = {}
    for name, (ours, parameter) in known.items():
        if not parameter:
            checks.setdefault(ours, {})
        elif name in entry.values:
            checks.setdefault(ours, {})[parameter] = (name, _converted(entry, name))
        elif name not in vetnode.OPTIONAL:
            raise entry.error(f'the parameter "{name}" is missing', remedy=f"{theirs} needs {', '.join(known)}")
    return checks


def _converted(entry: Entry, name: str) -> Any:  # noqa: ANN401 - what a user wrote
    try:
        return vetnode.value(name, entry.values[name])
    except ValueError as error:
        raise entry.error(f"{name} cannot be {entry.values[name]!r}", name, remedy=str(error)) from error


def _refuse(entry: Entry, theirs: str) -> None:
    reason = vetnode.WITHOUT_EQUIVALENT.get(theirs)
    if reason:
        what = f"{theirs} has no counterpart here: {reason}"
        raise entry.error(what, "type", remedy="take this entry out of the file")
    known = (*vetnode.EQUIVALENTS, *vetnode.WITHOUT_EQUIVALENT)
    raise entry.error(f'vetnode has no type "{theirs}"', "type", remedy=did_you_mean(theirs, known))


def _planned(entry: Entry, name: str, check_type: str, given: Mapping[str, tuple[str, Any]]) -> PlannedCheck:
    if check_type not in check_types():
        remedy = did_you_mean(check_type, check_types())
        raise entry.error(f'there is no check of type "{check_type}"', "type", remedy=remedy)
    found = registered(check_type)
    parameters = _validated(entry, found.check.parameters, given)
    return PlannedCheck(
        name=name,
        type=check_type,
        reference=found.reference,
        parameters={field.name: getattr(parameters, field.name) for field in fields(found.check.parameters)},
        timeout_s=_timeout_s(entry, found.check, given),
        requirements=tuple(_requirements(entry)),
        uniform=found.check.uniform,
        quiet=found.check.quiet,
        collective=found.check.collective(parameters),
        typical_s=found.check.typical_s,
        light=found.check.light,
        stage=keys.stage(entry),
        severity=keys.severity(entry),
        repeat=keys.repeat(entry),
        criteria=keys.criteria(entry, found.check),
    )


def _validated(entry: Entry, kind: type, given: Mapping[str, tuple[str, Any]]) -> Any:  # noqa: ANN401 - a `kind`
    """Return the parameters as a `kind`, a dataclass, with its defaults."""
    known = {field.name for field in fields(kind)}
    for name, (theirs, _) in given.items():
        if name not in known:
            what = f'{entry.values["type"]} has no parameter "{theirs}"'
            raise entry.error(what, theirs, remedy=did_you_mean(theirs, known))
    values = json.dumps({name: value for name, (_, value) in given.items()}, default=str)
    try:
        return TypeAdapter(kind).validate_json(values, strict=True)
    except ValidationError as error:
        raise _wrong_value(entry, error, given) from error


def _wrong_value(entry: Entry, error: ValidationError, given: Mapping[str, tuple[str, Any]]) -> ConfigError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in given:
        return entry.error(f'the parameter "{name}" is missing', remedy=f"`piolet vet explain {entry.values['type']}`")
    theirs, value = given[name]
    return entry.error(f"{theirs}: {first['msg']} (got {value!r})", theirs, remedy="correct the value")


def _timeout_s(entry: Entry, check: Check[Any, Any], given: Mapping[str, tuple[str, Any]]) -> float:
    """Return the seconds of the whole check; a `timeout` that is a parameter of its own must be over before."""
    own = any(name == "timeout" for name, _ in given.values())
    return keys.timeout_s(entry, check) + (DEFAULT_TIMEOUT_S if own else 0)


def _requirements(entry: Entry) -> Iterator[str]:
    """Yield the distributions that an entry names; vetnode allows lists in the list, for one installation each."""
    value = entry.values.get("requirements") or []
    listed = value if isinstance(value, list) else [value]
    for name in [name for each in listed for name in (_packages(each) if isinstance(each, list) else [each])]:
        if not isinstance(name, str):
            raise entry.error("requirements must be a list of package names", "requirements", remedy="write [torch]")
        yield name


def _packages(arguments: list[Any]) -> Iterator[Any]:
    """Yield what stands before the options of pip."""
    return takewhile(lambda each: not str(each).startswith("-"), arguments)
