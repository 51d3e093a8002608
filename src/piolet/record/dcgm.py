"""DCGM's counters, where NVML has none: of GPUs older than Hopper, which have no GPM, or where only DCGM answers.

Three ways, the first that works: the bindings of DCGM to its host engine, `dcgmi dmon`, and an exporter's address from
the settings. On GPUs of Ampere and older the counters are shared by the whole machine: a profiler of the program's own
then fails, which is why `record.dcgm = "off"` exists.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from piolet.core.errors import PioletError
from piolet.core.run import PIPE, Process, Runner, SystemRunner
from piolet.tools import dcgm, prometheus
from piolet.tools.dcgm import Columns, Field

OFF, AUTO = "off", "auto"

BINDINGS = (
    Path("/usr/share/datacenter-gpu-manager-4/bindings/python3"),
    Path("/usr/local/dcgm/bindings/python3"),
    Path("/usr/share/dcgm/bindings/python3"),
)
"""Where DCGM 4 and 3 put them; PyPI has none."""

_ANSWER_S = 10.0
_MOST_BYTES = 8 << 20


class Source(Protocol):
    """Gives what DCGM says now."""

    name: str

    def read(self) -> Mapping[str, Columns]:
        """Return the newest columns by UUID; a GPU of which there is nothing new is left out."""
        ...


def source(wanted: str, interval_s: float, runner: Runner | None = None) -> Source:
    """Return the source that `wanted` names: "auto", or the address of an exporter.

    Raises:
        ToolMissing: there is neither a host engine nor `dcgmi`.
        PioletError: DCGM is there and refuses.
    """
    if wanted not in {AUTO, OFF}:
        return Exporter(wanted)
    bindings = next((path for path in BINDINGS if (path / "DcgmReader.py").exists()), None)
    if bindings is not None:
        try:
            return HostEngine(bindings, interval_s)
        except PioletError:
            pass  # dcgmi says better why, or works
    return Dmon(interval_s, runner or SystemRunner())


@dataclass(slots=True)
class HostEngine:
    """The bindings, connected to the host engine of the node."""

    bindings: Path
    interval_s: float
    name: str = "dcgm"
    _reader: Any = field(init=False)

    def __post_init__(self) -> None:
        sys.path.append(str(self.bindings))
        try:
            numbers = [dcgm.UUID_FIELD, *(each.number for each in dcgm.FIELDS)]
            module = importlib.import_module("DcgmReader")
            self._reader = module.DcgmReader(fieldIds=numbers, updateFrequency=round(self.interval_s * 1e6))
        except Exception as error:  # the bindings raise errors of their own, of no common base
            raise PioletError(f"DCGM's host engine refuses: {error}", where=str(self.bindings)) from error

    def read(self) -> Mapping[str, Columns]:
        """Return the latest value of each field."""
        try:
            found = self._reader.GetLatestGpuValuesAsFieldIdDict()
        except Exception as error:  # as above
            raise PioletError(f"DCGM's host engine refuses: {error}", where="DcgmReader") from error
        return dict(by_uuid(values) for values in found.values() if values.get(dcgm.UUID_FIELD))


def by_uuid(values: Mapping[int, Any]) -> tuple[str, Columns]:
    """Return UUID and columns of the fields of a GPU, keyed by their numbers."""
    known = {number: value for number, value in values.items() if number in dcgm.BY_NUMBER}
    columns = {
        dcgm.BY_NUMBER[number].column: dcgm.BY_NUMBER[number].value(_number(value)) for number, value in known.items()
    }
    uuid = values[dcgm.UUID_FIELD]
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid), columns


def _number(value: Any) -> float | None:  # noqa: ANN401 - what the bindings give
    return float(value) if isinstance(value, int | float) else None


class Dmon:
    """`dcgmi dmon`, started once and read as it prints."""

    name = "dcgm"

    def __init__(self, interval_s: float, runner: Runner, fields: Sequence[Field] = dcgm.PROFILING) -> None:
        said = runner.run(["dcgmi", "discovery", "-l"], timeout=_ANSWER_S).stdout
        self._uuids = dcgm.parse_discovery(said)
        if not self._uuids:
            raise PioletError(
                "DCGM lists no GPU", where="dcgmi discovery -l", remedy="see `systemctl status nvidia-dcgm`"
            )
        self._fields = fields
        self._lock = threading.Lock()
        self._newest: dict[str, Columns] = {}
        self._process: Process = SystemRunner().start(dcgm.dmon_argv(fields, interval_s), stdout=PIPE)
        self._thread = threading.Thread(target=self._follow, name="dcgmi dmon", daemon=True)
        self._thread.start()

    def read(self) -> Mapping[str, Columns]:
        """Return what was printed since the last call.

        Raises:
            PioletError: dcgmi ended.
        """
        with self._lock:
            newest, self._newest = self._newest, {}
        if not newest and self._process.poll() is not None:
            remedy = "try it by hand; a profiler may hold the counters"
            raise PioletError("dcgmi dmon ended", where=" ".join(dcgm.dmon_argv(self._fields, 1)), remedy=remedy)
        return newest

    def close(self) -> None:
        """End dcgmi."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        if self._process.stdout:
            self._process.stdout.close()

    def _follow(self) -> None:
        for line in self._process.stdout or ():
            if row := dcgm.dmon_row(line, self._fields):
                gpu, columns = row
                with self._lock:
                    self._newest[self._uuids.get(gpu, "")] = columns


class Exporter:
    """An exporter of DCGM at an address: it has a pace of its own, so the same page again says nothing new."""

    name = "dcgm"

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise PioletError(
                f'"{address}" is no address of dcgm-exporter',
                where="record.dcgm",
                remedy="http://localhost:9400/metrics",
            )
        self._address = address
        self._before = ""

    def read(self) -> Mapping[str, Columns]:
        """Fetch the page; nothing if it is the last one."""
        import urllib.request  # noqa: PLC0415 - an agent without an exporter does without its memory

        try:
            with urllib.request.urlopen(self._address, timeout=_ANSWER_S) as answer:  # noqa: S310 - checked above
                text = answer.read(_MOST_BYTES).decode("utf-8", "replace")
        except OSError as error:
            raise PioletError(f"dcgm-exporter does not answer: {error}", where=self._address) from error
        if text == self._before:
            return {}
        self._before = text
        return {uuid: columns for (_, _, uuid), columns in dcgm.columns_of(prometheus.parse(text)).items()}
