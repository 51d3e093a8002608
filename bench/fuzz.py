"""Coverage-guided fuzzing of the parsers that read untrusted bytes, with atheris (pip install atheris).

    python bench/fuzz.py [TARGET [CORPUS_DIRECTORY] [-max_total_time=60] [libFuzzer's options]]

A target must answer any bytes with a value or with an error of Piolet's own tree; everything else is a crash, and
libFuzzer writes the bytes that cause it. Without a target each has nine seconds. `make test` runs the same parsers
under Hypothesis.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from common import Result, measured, report

ATHERIS = importlib.util.find_spec("atheris")
if ATHERIS:
    import atheris
with atheris.instrument_imports(include=["piolet"]) if ATHERIS else contextlib.nullcontext():
    from piolet.core import redact, toml
    from piolet.core.errors import PioletError
    from piolet.core.nodeset import NodeSet
    from piolet.data.staging.node import MARKER
    from piolet.data.staging.session import Session
    from piolet.env import edf
    from piolet.guard import habits
    from piolet.guard.finding import Place
    from piolet.guard.models import Item, risks_of
    from piolet.guard.policy import ModelLimits
    from piolet.guard.texts import in_lines
    from piolet.logbook import records
    from piolet.service import reading
    from piolet.tools import kmsg, rpmdb, sockets, training_output
    from piolet.tools.oci import manifest
    from piolet.vet import yamlfile

LIMITS = ModelLimits(max_bytes=1 << 22)
HERE = Path("fuzzed")
EACH_S = 9


def model(name: str) -> Callable[[bytes], object]:
    """Return a target that scans bytes as a model file of this name."""
    return lambda data: list(risks_of(Item(io.BytesIO(data), len(data), name, Place(name), LIMITS)))


def redaction(data: bytes) -> None:
    """Redact any text; a second time must change nothing."""
    clean = redact.redact(data.decode("utf-8", "surrogateescape"), {})
    if redact.redact(clean, {}) != clean:
        raise AssertionError("not redacted at once")


def staging(data: bytes) -> None:
    """Take a line of a step for an answer of one of its nodes, or for noise."""
    session = Session(None, NodeSet("node[1-2]"))  # type: ignore[arg-type] # nothing is read of a process
    for node, _ in session._parsed(MARKER + data.decode("utf-8", "replace")):  # noqa: SLF001 - what is fuzzed
        if node not in session.nodes:
            raise AssertionError(node)


TARGETS: dict[str, Callable[[bytes], object]] = {
    "edf": lambda data: edf.from_document(toml.parse(data, HERE)),
    "protocol": lambda data: yamlfile.parse(data, HERE),
    "redaction": redaction,
    "script": lambda data: list(habits.habits(data.decode("utf-8", "replace"))),
    "log": lambda data: list(in_lines(data.decode("utf-8", "replace"), "log", 1)),
    "pickle": model("a.pkl"),
    "safetensors": model("a.safetensors"),
    "gguf": lambda data: model("a.gguf")(b"GGUF\x03\0\0\0" + data),
    "onnx": model("a.onnx"),
    "archive": model("a.pt"),
    "keras": model("a.keras"),
    "hdf5": lambda data: model("a.h5")(b"\x89HDF\r\n\x1a\n" + data),
    "json": model("config.json"),
    "rpm": lambda data: rpmdb.packages(data, "rpmdb.sqlite"),
    "sockets": lambda data: sockets.parse(data.decode("latin-1")),
    "service": lambda data: reading.parse(data, HERE),
    "check": lambda data: records.parse_check(data.decode("utf-8", "replace"), "vet"),
    "steps": lambda data: training_output.parse(data.decode("utf-8", "replace")),
    "kernel": lambda data: kmsg.parse(data.decode("utf-8", "replace")),
    "staging": staging,
    "oci": lambda data: manifest.parse_manifest(data, "image"),
}


def main() -> None:
    """Fuzz the target that the command line names, or each for a while."""
    if not ATHERIS:
        report(__file__, [], absent=["atheris, which fuzzes: .venv/bin/pip install atheris"])
    elif len(sys.argv) == 1:
        report(__file__, list(map(fuzzed, TARGETS)), atheris="atheris, each target for 9 s")
    elif sys.argv[1] in TARGETS:
        fuzz(TARGETS[sys.argv.pop(1)])
    else:
        sys.exit(f"{__doc__}\ntargets: {', '.join(TARGETS)}")


def fuzzed(name: str) -> Result:
    """Fuzz a target in a process of its own; it must not end early."""
    with tempfile.TemporaryDirectory() as crashes:
        argv = [sys.executable, __file__, name, f"-max_total_time={EACH_S}", f"-artifact_prefix={crashes}/"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        found = len(list(Path(crashes).iterdir()))
    runs = re.search(r"Done (\d+) runs", done.stderr)
    if not runs:
        print(done.stderr[-2000:])
    return measured(f"{name}: crashes in {runs[1] if runs else 'unknown'} runs", "", [found], aim="ours <= 0")


def fuzz(target: Callable[[bytes], object]) -> None:
    """Give a target bytes without an end."""

    def once(data: bytes) -> None:
        with contextlib.suppress(PioletError):
            target(data)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
