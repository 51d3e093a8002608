"""What a pickle would import, read from its opcodes without executing any of them.

A small symbolic machine follows the stack with the effects that pickletools documents for each opcode, so that names
which STACK_GLOBAL takes from the stack or the memo are known. A name that cannot be told is reported as ``?``, which no
list allows. Imports before a broken opcode count: unpickling would have run them by then.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import IO, Any

MAX_OPCODES = 20_000_000
"""A checkpoint of a large model has some hundred thousand."""

_UNKNOWN = object()
_MARK = object()
_CLASS = re.compile(r"[A-Z]\w*\Z")

_TENSOR_REBUILDERS = (
    "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state"
    " _rebuild_qtensor _rebuild_sparse_tensor _rebuild_nested_tensor _rebuild_device_tensor_from_numpy"
    " _rebuild_meta_tensor_no_storage _rebuild_device_tensor_from_cpu_tensor _rebuild_wrapper_subclass"
)
_STORAGES = "Float Double Half BFloat16 Long Int Short Char Byte Bool ComplexFloat ComplexDouble QInt8 QUInt8 QInt32"
_DTYPES = (
    "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"
    " complex32 complex64 complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz qint8 quint8 qint32"
)

_LISTS = {
    "torch._utils": _TENSOR_REBUILDERS,
    "torch": f"{_DTYPES} Size device Tensor strided Generator "
    + " ".join(f"{name}Storage" for name in _STORAGES.split()),
    "torch.storage": "UntypedStorage TypedStorage",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch.serialization": "_get_layout",
    "torch.nn.functional": "relu gelu silu elu leaky_relu sigmoid tanh softmax",
    "torch.nn.parameter": "Parameter Buffer UninitializedParameter",
    "torch.jit._pickle": "build_intlist build_doublelist build_boollist build_tensorlist restore_type_tag",
    "numpy": "ndarray dtype matrix float64 float32 float16 int64 int32 int16 int8 uint8 bool_",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "numpy.dtypes": "Float64DType Float32DType Int64DType Int32DType UInt8DType BoolDType ObjectDType",
    "numpy.random._pickle": "__generator_ctor __bit_generator_ctor __randomstate_ctor",
    "numpy.random._pcg64": "PCG64",
    "numpy.random._mt19937": "MT19937",
    "builtins": "set frozenset complex bytearray slice range object int float bool str bytes list dict tuple",
    "__builtin__": "set frozenset complex bytearray slice xrange object int long float bool str unicode list dict",
    "collections": "OrderedDict defaultdict deque Counter",
    "_codecs": "encode",
    "copyreg": "_reconstructor",
    "copy_reg": "_reconstructor",
    "datetime": "datetime date time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    "argparse": "Namespace",
    "array": "_array_reconstructor array",
    "pathlib": "Path PosixPath PurePosixPath WindowsPath",
}
ALLOWED = frozenset(f"{module}.{name}" for module, names in _LISTS.items() for name in names.split())
"""Names that build values and do nothing else. Exact: a module with a harmless class also holds what it imports."""

_ALLOWED_CLASSES = ("torch.nn.modules.*", "torch.optim.*", "__torch__.*")
"""Modules whose classes (a capital letter, no dot) only hold state; what they call is named, and judged, as well."""

_DANGEROUS = re.compile(
    r"(?:os|posix|nt|subprocess|sys|shutil|socket|pty|commands|builtins|__builtin__|importlib|runpy|code|codeop|pdb|bdb|timeit"
    r"|ctypes|multiprocessing|threading|asyncio|operator|functools|itertools|types|marshal|pickle|_pickle|cloudpickle|dill|pip|ensurepip|webbrowser"
    r"|http|urllib|requests|httpx|aiohttp|ftplib|smtplib|telnetlib|ssl|cProfile|profile|trace|doctest|unittest|idlelib"
    r"|lib2to3|pydoc|inspect|gc|linecache|tempfile|io|_io|zipimport|pkgutil|imp|site|signal|platform|logging|distutils|venv"
    r"|_osx_support|_aix_support|_pyrepl|test|tkinter|sqlite3|joblib|torch\.hub|torch\.load|torch\.serialization\.load"
    r"|torch\.utils|torch\._dynamo|torch\._inductor|torch\.jit|torch\.storage\._load_from_bytes|torch\.distributed"
    r"|torch\.cuda\._utils|numpy\.testing|numpy\.f2py|numpy\.distutils|numpy\.load)(?:\.|\Z)"
)


@dataclass(frozen=True, slots=True)
class Import:
    """A global that a pickle names, as ``module.name``; ``?`` where it cannot be told."""

    name: str
    attribute: str = ""

    def allowed(self, extra: Iterable[str]) -> bool:
        """Return whether it is known to be harmless; `extra` holds names, and ``module.*`` for a module's classes."""
        if self.name in ALLOWED or self.name in extra:
            return True
        patterns = (*_ALLOWED_CLASSES, *(pattern for pattern in extra if pattern.endswith(".*")))
        return bool(_CLASS.match(self.attribute)) and any(fnmatchcase(self.name, pattern) for pattern in patterns)

    @property
    def dangerous(self) -> bool:
        """Return whether it is known to run code, or to reach files, processes or the network."""
        return bool(_DANGEROUS.match(self.name))


class BrokenPickle(Exception):  # noqa: N818 - the state of the pickle
    """The opcodes end early or make no sense; the message says where."""


def imports(stream: IO[bytes]) -> Iterator[Import]:
    """Yield what one pickle of `stream` names, leaving the stream behind it.

    Raises:
        BrokenPickle: after all that was named before.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPCODES:
                raise BrokenPickle(f"more than {MAX_OPCODES} opcodes")
            found = machine.step(opcode, argument)
            if found:
                yield found
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeError) as error:
        raise BrokenPickle(f"{type(error).__name__}: {str(error)[:80]}") from error


class _Machine:
    """The stack and the memo, of which only strings are known."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> Import | None:  # noqa: ANN401 - opcodes take any
        """Follow one opcode, and return what it names, if anything."""
        name = opcode.name
        if name in {"GLOBAL", "INST"}:
            found = _named(*str(argument).split(" ", 1))
        elif name == "STACK_GLOBAL":
            found = _named(*([_UNKNOWN] * 2 + self._stack)[-2:])
        elif name in {"EXT1", "EXT2", "EXT4"}:
            found = Import("?")
        else:
            found = None
        self._move(opcode, argument)
        return found

    def _move(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:  # noqa: ANN401 - same
        name = opcode.name
        if name in {"PUT", "BINPUT", "LONG_BINPUT"}:
            self._memo[int(argument)] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name in {"GET", "BINGET", "LONG_BINGET"}:
            self._stack.append(self._memo.get(int(argument), _UNKNOWN))
        elif name == "DUP":
            self._stack.append(self._top())
        elif name == "MARK":
            self._stack.append(_MARK)
        else:
            self._apply(opcode, argument)

    def _apply(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:  # noqa: ANN401 - same
        """Take and push what pickletools says; only strings keep their value."""
        before = opcode.stack_before
        if pickletools.markobject in before or pickletools.stackslice in before:
            while self._stack and self._stack.pop() is not _MARK:
                pass
            before = before[: before.index(pickletools.markobject)]
        del self._stack[max(len(self._stack) - len(before), 0) :]
        text = isinstance(argument, str) and ("STRING" in opcode.name or "UNICODE" in opcode.name)
        value = argument if text else _UNKNOWN
        self._stack.extend(value for _ in opcode.stack_after)

    def _top(self) -> Any:  # noqa: ANN401 - a string or _UNKNOWN
        return self._stack[-1] if self._stack else _UNKNOWN


def _named(module: Any = _UNKNOWN, name: Any = _UNKNOWN) -> Import:  # noqa: ANN401 - a string or _UNKNOWN
    if not isinstance(module, str) or not isinstance(name, str):
        return Import("?")
    return Import(f"{module}.{name}", name)
