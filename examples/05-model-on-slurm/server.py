"""A small model behind the OpenAI API: the words that follow a word in the text it has read, drawn at random.

It stands in for vLLM or SGLang where there is no GPU. What it says is nonsense; how it says it is the real protocol:
completions and chat, whole or as a stream of events, with usage, an API key and a health check.
"""

import argparse
import asyncio
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route


class Model:
    """Which words follow which."""

    def __init__(self, text: str) -> None:
        words = re.findall(r"\S+", text)
        self.after: dict[str, list[str]] = {}
        for word, following in zip(words, words[1:] + words[:1], strict=True):
            self.after.setdefault(word, []).append(following)

    def words(self, prompt: str, count: int) -> Iterator[str]:
        """Yield words that go on from the last one of the prompt."""
        word = (prompt.split() or [""])[-1]
        for _ in range(count):
            word = random.choice(self.after.get(word) or list(self.after))
            yield word


def delta(kind: str, text: str, **more: str) -> dict[str, Any]:
    """Return one choice of a stream."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": None} | more
    if kind == "chat":
        return choice | {"delta": {"content": text}}
    return choice | {"text": text}


def event(value: object) -> str:
    """Return a server-sent event."""
    return f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n"


def answer_of(kind: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return the handler of /v1/chat/completions or /v1/completions."""

    async def answer(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {os.environ.get('API_KEY', '')}":
            return JSONResponse({"error": {"message": "wrong key"}}, 401)
        asked = await request.json()
        count = asked.get("max_tokens") or 16
        prompt = asked["messages"][-1]["content"] if kind == "chat" else asked["prompt"]
        words = request.app.state.model.words(prompt, count)
        head = {"id": f"answer-{time.time_ns()}", "created": int(time.time()), "model": asked["model"]}
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": count}
        if asked.get("stream"):
            wants_usage = (asked.get("stream_options") or {}).get("include_usage")
            events = stream(kind, head, words, usage if wants_usage else None, request.app.state.pause_s)
            return StreamingResponse(events, media_type="text/event-stream")
        text = " ".join(words)
        await asyncio.sleep(request.app.state.pause_s * count)
        whole = {"message": {"role": "assistant", "content": text}} if kind == "chat" else {"text": text}
        return JSONResponse(head | {"choices": [{"index": 0, "finish_reason": "length"} | whole], "usage": usage})

    return answer


async def stream(
    kind: str, head: dict[str, Any], words: Iterable[str], usage: dict[str, int] | None, pause_s: float
) -> AsyncIterator[str]:
    """Yield the events of a streamed answer."""
    for word in words:
        await asyncio.sleep(pause_s)
        yield event(head | {"choices": [delta(kind, f"{word} ")]})
    yield event(head | {"choices": [delta(kind, "", finish_reason="length")]})
    if usage:
        yield event(head | {"choices": [], "usage": usage})
    yield event("[DONE]")


async def health(_: Request) -> Response:
    """Say that the model works."""
    return PlainTextResponse("ok")


PATHS = (("chat", "chat/completions"), ("text", "completions"))


def main() -> None:
    """Read the text and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("text", type=Path, help="What to read.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pause-ms", type=float, default=10, help="How long a word takes.")
    chosen = parser.parse_args()
    handlers = [Route(f"/v1/{path}", answer_of(kind), methods=["POST"]) for kind, path in PATHS]
    application = Starlette(routes=[*handlers, Route("/health", health)])
    application.state.model = Model(chosen.text.read_text("utf-8"))
    application.state.pause_s = chosen.pause_ms / 1000
    uvicorn.run(application, host="0.0.0.0", port=chosen.port, log_level="warning")  # noqa: S104 - guarded by the key


if __name__ == "__main__":
    main()
