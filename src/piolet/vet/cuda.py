"""A GPU through CUDA's own libraries: for nodes that have a driver and NVRTC, but neither PyTorch nor CuPy.

Only what a check needs: compile one kernel, launch it, copy. The calls are those of the CUDA Driver API and of NVRTC,
as their references have them since CUDA 11; a library that answers them in memory tries them in the tests, no GPU did.
"""

from __future__ import annotations

import ctypes
import random
import sys
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path

_DRIVER = "libcuda.so.1"
_COMPILERS = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so")
_WHEELS = ("nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib")
"""Where wheels of NVIDIA keep it, below a directory of sys.path."""

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_TILE = 16
_FLOAT_BYTES = 4
_PATTERN = 65521
"""Numbers after which those of a matrix come again: a prime, so that no two rows are alike."""

KERNEL = b"""
extern "C" __global__ void multiply(const float *left, const float *right, float *product, int size) {
    __shared__ float a[16][16], b[16][16];
    const int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 16 + y, column = blockIdx.x * 16 + x;
    float sum = 0;
    for (int step = 0; step < size; step += 16) {
        a[y][x] = row < size && step + x < size ? left[(size_t)row * size + step + x] : 0;
        b[y][x] = column < size && step + y < size ? right[(size_t)(step + y) * size + column] : 0;
        __syncthreads();
        for (int k = 0; k < 16; k++) sum += a[y][k] * b[k][x];
        __syncthreads();
    }
    if (row < size && column < size) product[(size_t)row * size + column] = sum;
}
"""
"""A product by tiles: slower than cuBLAS, and always in the same order, so that every repetition has the same bits."""


class CudaError(Exception):
    """A call failed; the message says which, and with what number."""


def device_count() -> int:
    """Return how many GPUs the driver shows; OSError without a driver or a compiler."""
    compiler()
    found = c_int()
    _call(_driver(), "cuInit", c_uint(0))
    _call(_driver(), "cuDeviceGetCount", byref(found))
    return found.value


def _driver() -> ctypes.CDLL:
    return ctypes.CDLL(_DRIVER)


def compiler() -> ctypes.CDLL:
    """Load NVRTC: that of the system, else of a wheel."""
    places = [Path(directory) / wheel / name for directory in sys.path for wheel in _WHEELS for name in _COMPILERS]
    for name in (*_COMPILERS, *(str(place) for place in places if place.exists())):
        with suppress(OSError):
            return ctypes.CDLL(name)
    raise OSError("there is no libnvrtc")


def _call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    status = getattr(library, name)(*arguments)
    if status:
        raise CudaError(f"{name} failed with {status}")


def compiled(architecture: str) -> bytes:
    """Return the kernel as PTX for an architecture such as ``compute_90``."""
    library, program, size = compiler(), c_void_p(), c_size_t()
    _call(library, "nvrtcCreateProgram", byref(program), c_char_p(KERNEL), b"multiply.cu", 0, None, None)
    options = (c_char_p * 1)(f"--gpu-architecture={architecture}".encode())
    _call(library, "nvrtcCompileProgram", program, 1, options)
    _call(library, "nvrtcGetPTXSize", program, byref(size))
    text = ctypes.create_string_buffer(size.value)
    _call(library, "nvrtcGetPTX", program, text)
    _call(library, "nvrtcDestroyProgram", byref(program))
    return text.raw


class Memory:
    """Bytes on the device, freed with this object."""

    def __init__(self, driver: ctypes.CDLL, size: int) -> None:
        self._driver, self.size, self.address = driver, size, c_void_p()
        _call(driver, "cuMemAlloc_v2", byref(self.address), c_size_t(size))

    def __del__(self) -> None:
        self._driver.cuMemFree_v2(self.address)


class CudaBackend:
    """See arrays.Backend."""

    def __init__(self, index: int) -> None:
        self._driver = _driver()
        self.name = f"GPU {index} (nvrtc)"
        device, context, module, self._kernel = c_int(), c_void_p(), c_void_p(), c_void_p()
        self._kept: tuple[Memory, ...] = ()
        self._do("cuInit", c_uint(0))
        self._do("cuDeviceGet", byref(device), c_int(index))
        self._do("cuDevicePrimaryCtxRetain", byref(context), device)
        self._context = context
        self._do("cuCtxSetCurrent", context)
        self._do("cuModuleLoadData", byref(module), compiled(self._architecture(device)))
        self._do("cuModuleGetFunction", byref(self._kernel), module, b"multiply")

    def _do(self, name: str, *arguments: object) -> None:
        _call(self._driver, name, *arguments)

    def _architecture(self, device: c_int) -> str:
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            found = c_int()
            self._do("cuDeviceGetAttribute", byref(found), c_int(attribute), device)
            numbers.append(str(found.value))
        return f"compute_{''.join(numbers)}"

    def matrices(self, size: int) -> tuple[Memory, Memory]:
        """See Backend; a pattern of random numbers, again and again."""
        chosen = random.Random(0)  # noqa: S311 - numbers to compute with
        pattern = array("f", (chosen.random() for _ in range(2 * _PATTERN))).tobytes()
        return self._filled(size, pattern[: len(pattern) // 2]), self._filled(size, pattern[len(pattern) // 2 :])

    def _filled(self, size: int, pattern: bytes) -> Memory:
        total = size * size * _FLOAT_BYTES
        memory = Memory(self._driver, total)
        self._do("cuMemcpyHtoD_v2", memory.address, (pattern * (total // len(pattern) + 1))[:total], c_size_t(total))
        return memory

    def multiply(self, left: Memory, right: Memory) -> Memory:
        """See Backend."""
        self._do("cuCtxSetCurrent", self._context)
        product = Memory(self._driver, left.size)
        size = c_int(round((left.size / _FLOAT_BYTES) ** 0.5))
        given = (left.address, right.address, product.address, size)
        pointers = (c_void_p * len(given))(*(ctypes.cast(ctypes.pointer(each), c_void_p) for each in given))
        blocks = -(-size.value // _TILE)
        self._do("cuLaunchKernel", self._kernel, blocks, blocks, 1, _TILE, _TILE, 1, 0, None, pointers, None)
        self._do("cuCtxSynchronize")
        return product

    def equal(self, one: Memory, other: Memory) -> bool:
        """See Backend."""
        return self._fetched(one) == self._fetched(other)

    def _fetched(self, memory: Memory) -> bytes:
        text = ctypes.create_string_buffer(memory.size)
        self._do("cuMemcpyDtoH_v2", text, memory.address, c_size_t(memory.size))
        return text.raw

    def copies(self, size: int) -> Sequence[Callable[[], object]]:
        """See Backend; the host's memory is pinned."""
        here, there, beside = c_void_p(), Memory(self._driver, size), Memory(self._driver, size)
        self._do("cuMemAllocHost_v2", byref(here), c_size_t(size))

        self._kept = there, beside

        def copied(name: str, target: c_void_p, source: c_void_p) -> Callable[[], None]:
            def run() -> None:
                self._do("cuCtxSetCurrent", self._context)
                self._do(name, target, source, c_size_t(size))
                self._do("cuCtxSynchronize")

            return run

        return (
            copied("cuMemcpyHtoD_v2", there.address, here),
            copied("cuMemcpyDtoH_v2", here, there.address),
            copied("cuMemcpyDtoD_v2", beside.address, there.address),
        )
