"""Multiplying matrices and copying on whatever computes: GPUs through PyTorch, CuPy or NVRTC, the host through NumPy.

Runs on nodes, in the process of a check. The GPU backends were never run on a GPU by the tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from piolet.vet import cuda
from piolet.vet.gpus import slurm_indexes


class Backend(Protocol):
    """One device that multiplies matrices of float32, and copies."""

    name: str

    def matrices(self, size: int) -> tuple[Any, Any]:
        """Return two square matrices, the same at every call."""
        ...

    def multiply(self, left: Any, right: Any) -> Any:  # noqa: ANN401 - the library's arrays
        """Return the product once it is there."""
        ...

    def equal(self, one: Any, other: Any) -> bool:  # noqa: ANN401 - same
        """Tell whether two products are the same, bit for bit."""
        ...

    def copies(self, size: int) -> Sequence[Callable[[], object]]:
        """Return what copies `size` bytes, and ends when they are there: from the host, to it, and on the device."""
        ...


class NumpyBackend:
    """The processors of this host."""

    def __init__(self) -> None:
        self._numpy = importlib.import_module("numpy")
        self.name = "the host (numpy)"

    def matrices(self, size: int) -> tuple[Any, Any]:
        """See Backend."""
        chosen = self._numpy.random.default_rng(0)
        return chosen.random((size, size), dtype="float32"), chosen.random((size, size), dtype="float32")

    def multiply(self, left: Any, right: Any) -> Any:  # noqa: ANN401 - same
        """See Backend."""
        return left @ right

    def equal(self, one: Any, other: Any) -> bool:  # noqa: ANN401 - same
        """See Backend."""
        return one.tobytes() == other.tobytes()  # type: ignore[no-any-return] # arrays

    def copies(self, size: int) -> Sequence[Callable[[], object]]:
        """See Backend; the host is its own device."""
        here, there = (self._numpy.ones(size, dtype="uint8") for _ in range(2))
        copy = self._numpy.copyto
        return lambda: copy(there, here), lambda: copy(here, there), lambda: copy(there, here)


class TorchBackend:
    """A GPU through PyTorch: CUDA or ROCm."""

    def __init__(self, torch: Any, index: int) -> None:  # noqa: ANN401 - a module
        self._torch, self._device = torch, f"cuda:{index}"
        self.name = f"GPU {index} (torch)"

    def matrices(self, size: int) -> tuple[Any, Any]:
        """See Backend."""
        generator = self._torch.Generator().manual_seed(0)
        made = [self._torch.rand(size, size, generator=generator).to(self._device) for _ in range(2)]
        return made[0], made[1]

    def multiply(self, left: Any, right: Any) -> Any:  # noqa: ANN401 - same
        """See Backend."""
        product = left @ right
        self._torch.cuda.synchronize(self._device)
        return product

    def equal(self, one: Any, other: Any) -> bool:  # noqa: ANN401 - same
        """See Backend."""
        kind = self._torch.int32
        return bool(self._torch.equal(one.view(kind), other.view(kind)))

    def copies(self, size: int) -> Sequence[Callable[[], object]]:
        """See Backend."""
        here = self._torch.ones(size, dtype=self._torch.uint8).pin_memory()
        there, beside = (self._torch.ones(size, dtype=self._torch.uint8, device=self._device) for _ in range(2))

        def copied(target: Any, source: Any) -> Callable[[], object]:  # noqa: ANN401 - same
            return lambda: (target.copy_(source), self._torch.cuda.synchronize(self._device))

        return copied(there, here), copied(here, there), copied(beside, there)


class CupyBackend:
    """A GPU through CuPy."""

    def __init__(self, cupy: Any, index: int) -> None:  # noqa: ANN401 - a module
        self._cupy, self._device = cupy, cupy.cuda.Device(index)
        self.name = f"GPU {index} (cupy)"

    def matrices(self, size: int) -> tuple[Any, Any]:
        """See Backend."""
        with self._device:
            chosen = self._cupy.random.RandomState(0)
            return chosen.rand(size, size, dtype="float32"), chosen.rand(size, size, dtype="float32")

    def multiply(self, left: Any, right: Any) -> Any:  # noqa: ANN401 - same
        """See Backend."""
        with self._device:
            product = left @ right
            self._device.synchronize()
            return product

    def equal(self, one: Any, other: Any) -> bool:  # noqa: ANN401 - same
        """See Backend."""
        with self._device:
            return bool((one.view("int32") == other.view("int32")).all())

    def copies(self, size: int) -> Sequence[Callable[[], object]]:
        """See Backend."""
        here: Any = importlib.import_module("cupyx").zeros_pinned(size, dtype="uint8")
        with self._device:
            there, beside = (self._cupy.ones(size, dtype="uint8") for _ in range(2))

        def copied(copy: Callable[[], object]) -> Callable[[], object]:
            def run() -> None:
                with self._device:
                    copy()
                    self._device.synchronize()

            return run

        ways = (lambda: there.set(here), lambda: there.get(out=here), lambda: self._cupy.copyto(beside, there))
        return [copied(way) for way in ways]


def allocated(environ: Mapping[str, str]) -> Sequence[Backend]:
    """Return a backend for each GPU that Slurm granted, or one for the host; ImportError as of `gpu_backends`."""
    count = len(slurm_indexes(environ) or ())
    return gpu_backends(count) if count else [NumpyBackend()]


def gpu_backends(count: int) -> Sequence[Backend]:
    """Return a backend for each of `count` GPUs; ImportError if nothing here can use them all."""
    found = []
    for name, look in (("torch", _torch), ("cupy", _cupy), ("nvrtc", _nvrtc)):
        try:
            seen, make = look()
        except Exception as error:  # noqa: BLE001 - a library without its driver raises errors of its own
            found.append(f"{name}: {error}")
            continue
        if seen >= count:
            return [make(index) for index in range(count)]
        found.append(f"{name} sees {seen} GPUs")
    raise ImportError(f"nothing here can compute on {count} GPUs ({'; '.join(found)})")


Found = tuple[int, Callable[[int], Backend]]
"""How many GPUs a library sees, and what makes the backend of each."""


def _torch() -> Found:
    library = importlib.import_module("torch")
    return library.cuda.device_count(), lambda index: TorchBackend(library, index)


def _cupy() -> Found:
    library = importlib.import_module("cupy")
    return library.cuda.runtime.getDeviceCount(), lambda index: CupyBackend(library, index)


def _nvrtc() -> Found:
    return cuda.device_count(), cuda.CudaBackend
