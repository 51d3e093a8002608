"""Starting the node's side quickly, with stand-ins for modules of Python that load longer than the checks run.

    python -S -P -c "import sys; sys.path[:] = [...]; from piolet.vet import light; light.main()" PROTOCOL

Most of what a node did before its first check was to generate code for dataclasses and enumerations, and to describe
types that nobody asks for. Here a dataclass is a plain class, a type is nothing, and what is seldom needed is loaded
when it is called; from then on all modules are Python's own. Only checks that say so (`Check.light`) run like this.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # what signal is made of
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import Any

_MISSING = object()
_STAND_INS: dict[str, ModuleType] = {}


def main() -> None:
    """Answer the protocol on the command line, and end without tidying up."""
    import gc  # noqa: PLC0415 - here begins what is timed
    import os  # noqa: PLC0415 - same

    gc.disable()
    install()
    from piolet.vet.node import print_answer  # noqa: PLC0415 - with the stand-ins
    from piolet.vet.protocol import from_json  # noqa: PLC0415 - same

    print_answer(from_json(sys.argv[1]))
    os._exit(0)


def install() -> None:
    """Put the stand-ins where imports look first."""
    _stand_in("dataclasses", dataclass=_dataclass, field=_Field, asdict=_asdict, replace=_replace)
    _stand_in("typing", Generic=_Generic, TYPE_CHECKING=False, __getattr__=lambda _: _Nothing())
    _stand_in("annotated_types", __getattr__=lambda _: _Nothing())
    _stand_in("enum", StrEnum=_StrEnum)
    _stand_in("string", capwords=lambda text, sep: sep.join(map(str.capitalize, text.split(sep))))  # for pynvml
    _stand_in("re", compile=lambda *given: _Later("re", "compile", given), ASCII=256, IGNORECASE=2, **_FLAGS)
    for name in ("pathlib", "shlex", "ctypes.util"):
        _stand_in(name, __getattr__=lambda attribute, name=name: _Later(name, attribute))
    _STAND_INS["signal"] = sys.modules["signal"] = _signal


_FLAGS = {"MULTILINE": 8, "DOTALL": 16, "VERBOSE": 64}


def _stand_in(name: str, **attributes: Any) -> None:  # noqa: ANN401 - whatever a module holds
    module = type(sys)(name)
    vars(module).update(attributes)
    _STAND_INS[name] = sys.modules[name] = module


def restore() -> None:
    """Take the stand-ins away, so that what is imported from now on gets Python's own modules."""
    for name, module in _STAND_INS.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _STAND_INS.clear()


class _Later:
    """An attribute of a module that is loaded when this is used; with `given`, what it returns for them."""

    def __init__(self, module: str, attribute: str, given: tuple[Any, ...] | None = None) -> None:
        self._sought = module, attribute, given

    def _real(self) -> Any:  # noqa: ANN401 - anything
        import importlib  # noqa: PLC0415 - seldom

        restore()
        module, attribute, given = self._sought
        found = getattr(importlib.import_module(module), attribute)
        return found if given is None else found(*given)

    def __call__(self, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - same
        return self._real()(*given, **named)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - same
            return getattr(self._real(), name)(*given, **named)

        return call


class _Nothing:
    """A type that nobody looks at: what it is called with or indexed by changes nothing."""

    def __call__(self, *_: Any, **__: Any) -> _Nothing:  # noqa: ANN401 - same
        return self

    def __getitem__(self, _: Any) -> _Nothing:  # noqa: ANN401 - same
        return self


class _Generic:
    def __class_getitem__(cls, _: Any) -> type:  # noqa: ANN401 - same
        return cls


class _Words(type):
    """The class of a StrEnum: its words are instances of it, found by their value."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)
        new: Callable[..., str] = str.__new__
        cls._words: dict[str, str] = {text: new(cls, text) for key, text in namespace.items() if key.isupper()}
        for key in filter(str.isupper, namespace):
            setattr(cls, key, cls._words[namespace[key]])

    def __call__(cls, text: str) -> Any:  # noqa: ANN401 - one of the words
        if text not in cls._words:
            raise ValueError(f"{text!r} is not a valid {cls.__name__}")
        return cls._words[text]

    def __iter__(cls) -> Iterator[str]:
        return iter(cls._words.values())


class _StrEnum(str, metaclass=_Words):  # noqa: SLOT000 - its words are few
    __str__ = str.__str__


class _Field:
    """The default of a field that is made anew for each."""

    def __init__(self, *, default_factory: Callable[[], Any]) -> None:
        self.make = default_factory


def _dataclass(cls: Any = None, **_: bool) -> Any:  # noqa: ANN401 - a class, or what decorates one
    """Make a class whose instances keep their fields in a dictionary: neither frozen nor slotted, but quickly made."""
    if cls is None:
        return _dataclass
    inherited = [vars(base).get("_fields", {}) for base in reversed(cls.__mro__)]
    own = {name: vars(cls).get(name, _MISSING) for name in vars(cls).get("__annotations__", ())}
    cls._fields = {name: default for fields in (*inherited, own) for name, default in fields.items()}
    cls.__init__, cls.__eq__, cls.__repr__ = _init, _equal, _shown
    return cls


def _init(self: Any, *given: Any, **named: Any) -> None:  # noqa: ANN401 - an instance of any of them
    fields = self._fields
    values = dict(zip(fields, given, strict=False)) | named
    for name, default in fields.items():
        if name not in values:
            values[name] = default.make() if isinstance(default, _Field) else default
    wrong = values.keys() - fields.keys() or [name for name, value in values.items() if value is _MISSING]
    if wrong or len(given) > len(fields):
        raise TypeError(f"{type(self).__name__} takes {', '.join(fields)}; wrong or missing: {', '.join(wrong)}")
    vars(self).update(values)


def _equal(self: Any, other: object) -> bool:  # noqa: ANN401 - same
    return type(self) is type(other) and vars(self) == vars(other)


def _shown(self: Any) -> str:  # noqa: ANN401 - same
    return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in _asdict(self).items())})"


def _asdict(instance: Any) -> dict[str, Any]:  # noqa: ANN401 - same
    """Return the fields by name, those inside of them as they are."""
    return {name: getattr(instance, name) for name in instance._fields}


def _replace(instance: Any, **changes: Any) -> Any:  # noqa: ANN401 - same
    return type(instance)(**(_asdict(instance) | changes))
