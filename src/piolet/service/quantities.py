"""Sizes as users write them (4GiB) and as Kubernetes writes quantities (4Gi, 500m)."""

from __future__ import annotations

_UNITS = {"MiB": 1, "GiB": 1024, "TiB": 1024**2}


def mebibytes(size: str) -> int:
    """Return the MiB of ``512MiB``, ``4GiB`` or ``1TiB``."""
    return int(size[:-3]) * _UNITS[size[-3:]]


def gibibytes(size: str) -> float:
    """Return the GiB of a size."""
    return mebibytes(size) / 1024


def memory(size: str) -> str:
    """Return a size as a quantity: ``4Gi``."""
    return size.removesuffix("B")


def processors(cpus: float) -> str:
    """Return processors as a quantity: ``2``, ``500m``; at least a thousandth of one."""
    return str(int(cpus)) if float(cpus).is_integer() else f"{max(1, round(cpus * 1000))}m"


def amount(quantity: str) -> float:
    """Return the number of a quantity of processors or GPUs: ``2``, ``500m``."""
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
