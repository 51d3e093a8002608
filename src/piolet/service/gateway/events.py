"""An answer as a stream of server-sent events, looked at as it passes: whether it is whole, and what it used.

Source: OpenAI API reference, streaming: the last event is ``data: [DONE]``; with ``stream_options.include_usage`` an
event without choices before it tells the tokens of the whole request.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_END = re.compile(rb"\r?\n\r?\n")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_DONE = re.compile(rb"(?m)^data:\s*\[DONE\]")
_DATA = re.compile(rb"(?m)^data:")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a request and of its answer."""

    prompt: int = 0
    completion: int = 0


def tokens_of(answer: Any) -> Tokens | None:  # noqa: ANN401 - as in JSON
    """Return the tokens that an answer of the API tells; None if it does not."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(f"{part}_tokens") or 0 for part in ("prompt", "completion")]
    return Tokens(*(count if isinstance(count, int) else 0 for count in counts))


@dataclass(slots=True)
class Events:
    """A stream as it passes. `hide_usage` keeps the event with the usage from a client that did not ask for it."""

    hide_usage: bool
    done: bool = False
    count: int = 0
    tokens: Tokens | None = None
    _rest: bytes = field(default=b"", repr=False)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes, and return the whole events that are to be passed on."""
        data = self._rest + chunk
        ends = [found.end() for found in _END.finditer(data)]
        if not ends:
            self._rest = data
            return b""
        whole, self._rest = data[: ends[-1]], data[ends[-1] :]
        self.count += len(_DATA.findall(whole))
        if b"usage" not in whole and b"[DONE]" not in whole:
            return whole
        starts = [0, *ends[:-1]]
        return b"".join(self._passed(data[start:end]) for start, end in zip(starts, ends, strict=True))

    def used(self) -> Tokens:
        """Return the tokens that the stream told; of one that broke off, an event is counted as a token."""
        return self.tokens or Tokens(0, self.count)

    def _passed(self, event: bytes) -> bytes:
        if _DONE.search(event):
            self.done = True
        elif _USAGE.search(event):
            answer = _json_of(event)
            self.tokens = tokens_of(answer) or self.tokens
            if self.hide_usage and isinstance(answer, dict) and not answer.get("choices"):
                return b""
        return event


def _json_of(event: bytes) -> Any:  # noqa: ANN401 - as in JSON
    try:
        return json.loads(b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:")))
    except ValueError:
        return None
