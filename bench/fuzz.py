"""Coverage-guided fuzzing of the parsers that read untrusted bytes, with atheris (pip install atheris).

    python bench/fuzz.py TARGET [CORPUS_DIRECTORY] [-max_total_time=60] [libFuzzer's options]

A target must answer any bytes with a value or with an error of Piolet's own tree; everything else is a crash, and
libFuzzer writes the bytes that cause it. `make test` runs the same parsers under Hypothesis.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["piolet"]):
    from piolet.core import redact, toml
    from piolet.core.errors import PioletError
    from piolet.env import edf
    from piolet.guard import habits
    from piolet.guard.finding import Place
    from piolet.guard.models import Item, risks_of
    from piolet.guard.policy import ModelLimits
    from piolet.tools import rpmdb, sockets
    from piolet.tools.oci import manifest
    from piolet.vet import yamlfile

LIMITS = ModelLimits(max_bytes=1 << 22)
HERE = Path("fuzzed")


def model(name: str) -> Callable[[bytes], object]:
    """Return a target that scans bytes as a model file of this name."""
    return lambda data: list(risks_of(Item(io.BytesIO(data), len(data), name, Place(name), LIMITS)))


def redaction(data: bytes) -> None:
    """Redact any text; a second time must change nothing."""
    clean = redact.redact(data.decode("utf-8", "surrogateescape"), {})
    if redact.redact(clean, {}) != clean:
        raise AssertionError("not redacted at once")


TARGETS: dict[str, Callable[[bytes], object]] = {
    "edf": lambda data: edf.from_document(toml.parse(data, HERE)),
    "protocol": lambda data: yamlfile.parse(data, HERE),
    "redaction": redaction,
    "script": lambda data: list(habits.habits(data.decode("utf-8", "replace"))),
    "pickle": model("a.pkl"),
    "safetensors": model("a.safetensors"),
    "gguf": lambda data: model("a.gguf")(b"GGUF\x03\0\0\0" + data),
    "onnx": model("a.onnx"),
    "archive": model("a.pt"),
    "json": model("config.json"),
    "rpm": lambda data: rpmdb.packages(data, "rpmdb.sqlite"),
    "sockets": lambda data: sockets.parse(data.decode("latin-1")),
    "oci": lambda data: manifest.parse_manifest(data, "image"),
}


def main() -> None:
    """Fuzz the target that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:  # noqa: PLR2004 - the program and its target
        sys.exit(f"{__doc__}\ntargets: {', '.join(TARGETS)}")
    target = TARGETS[sys.argv.pop(1)]

    def once(data: bytes) -> None:
        with contextlib.suppress(PioletError):
            target(data)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
