"""What pushed samples look like on the wire: Prometheus remote-write 0.1.0, and OTLP 1 in JSON. Pure functions.

Remote-write is a protobuf message in snappy's block format; three nested messages are not worth a compiler, and the
tests read it back through Prometheus and VictoriaMetrics. OTLP allows JSON, which needs nothing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from itertools import groupby

from piolet.core.errors import ToolMissing
from piolet.logbook.openmetrics import Block, Sample, label_text

_VARINT, _FIXED64, _BYTES = 0, 1, 2
"""Protobuf's wire types."""

_CUMULATIVE = 2
"""OTLP: AGGREGATION_TEMPORALITY_CUMULATIVE."""

REMOTE_WRITE_HEADERS = {
    "content-type": "application/x-protobuf",
    "content-encoding": "snappy",
    "x-prometheus-remote-write-version": "0.1.0",
}
OTLP_HEADERS = {"content-type": "application/json"}


def remote_write(blocks: Iterable[Block], now_ns: int) -> bytes:
    """Return the body of a remote-write request (prometheus/prometheus, prompb/remote.proto, types.proto).

    Raises:
        ToolMissing: cramjam is not installed.
    """
    try:
        import cramjam  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ToolMissing("cramjam", remedy="pip install 'piolet[push]'") from error
    message = b"".join(
        _field(1, _series(metric.name, list(same), now_ns))
        for metric, samples in blocks
        for _, same in groupby(samples, key=lambda sample: sample.labels)
    )
    return bytes(cramjam.snappy.compress_raw(message))


def _series(name: str, samples: list[Sample], now_ns: int) -> bytes:
    """Return a TimeSeries: labels in their order, those that are empty left out, then samples in milliseconds."""
    told = {key: text for key, content in samples[0].labels.items() if (text := label_text(content))}
    labels = sorted({"__name__": name, **told}.items())
    encoded = [_field(1, _field(1, key.encode()) + _field(2, text.encode())) for key, text in labels]
    for sample in samples:
        time_ms = (now_ns if sample.time_ns is None else sample.time_ns) // 1_000_000
        value = bytes([1 << 3 | _FIXED64]) + struct.pack("<d", sample.value)
        encoded.append(_field(2, value + bytes([2 << 3 | _VARINT]) + _varint(time_ms)))
    return b"".join(encoded)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _BYTES]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def otlp(blocks: Iterable[Block], now_ns: int, version: str) -> bytes:
    """Return the body of an OTLP/HTTP request in JSON (opentelemetry-proto, metrics/v1): a metric each, no resource."""
    metrics = []
    for metric, samples in blocks:
        points = [_point(sample, now_ns) for sample in samples]
        kept: dict[str, object] = {"dataPoints": points}
        if metric.kind == "counter":
            kind, kept = "sum", kept | {"isMonotonic": True, "aggregationTemporality": _CUMULATIVE}
        else:
            kind = "gauge"
        metrics.append({"name": metric.name, "description": metric.help, kind: kept})
    scope = {"scope": {"name": "piolet", "version": version}, "metrics": metrics}
    resource = {"attributes": [_attribute("service.name", "piolet")]}
    return json.dumps({"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope]}]}).encode()


def _point(sample: Sample, now_ns: int) -> dict[str, object]:
    labels = ((key, label_text(content)) for key, content in sample.labels.items())
    return {
        "attributes": [_attribute(key, text) for key, text in labels if text],
        "timeUnixNano": str(now_ns if sample.time_ns is None else sample.time_ns),
        "asDouble": sample.value,
    }


def _attribute(key: str, text: str) -> dict[str, object]:
    return {"key": key, "value": {"stringValue": text}}
