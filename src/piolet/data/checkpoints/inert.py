"""Reading the structure of a pickle without importing or calling anything that it names.

Checkpoints say in pickles which files belong to them. Here every class and function in one stands for an inert
object, so reading is safe whatever the pickle asks for.
"""

from __future__ import annotations

import pickle
from typing import IO, Any

_MALFORMED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


class Inert(dict[Any, Any]):
    """Any object of a pickle: its items if it is a mapping, and the state that it was given."""

    __hash__ = object.__hash__  # type: ignore[assignment] # keys are told apart, never compared

    def __new__(cls, *_: object, **__: object) -> Inert:  # noqa: PYI034 - pickles make no subclass
        """Take any arguments and use none."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()
        self.state: Any = None

    def __eq__(self, other: object) -> bool:
        return self is other

    def __call__(self, *_: object, **__: object) -> Inert:
        """Stand for what a call would have returned."""
        return Inert()

    def __setstate__(self, state: object) -> None:
        self.state = state

    def append(self, _: object) -> None:
        """Forget an item of what was a list."""


class _Reader(pickle.Unpickler):
    def find_class(self, _module: str, _name: str) -> type[Inert]:
        return Inert

    def persistent_load(self, _: object) -> Inert:
        return Inert()


def load(stream: IO[bytes]) -> Any:  # noqa: ANN401 - a pickle holds any value
    """Return what the pickle holds, with `Inert` for all that is not plain data; ValueError if it is torn."""
    try:
        return _Reader(stream).load()
    except _MALFORMED as error:
        raise ValueError(f"not a whole pickle: {error}") from error
