"""Clients of an OpenAI-compatible API that keep asking, and tell whole answers from failures and from cut ones."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx2


@dataclass
class Tally:
    """How requests ended: `whole`, `refused: STATUS`, `broken` (and told so), or `silently cut`."""

    ended: Counter = field(default_factory=Counter)
    first_byte_s: list[float] = field(default_factory=list)

    @property
    def failures(self) -> dict[str, int]:
        return {how: count for how, count in self.ended.items() if how != "whole"}


async def ask(client, address, key, tally, *, words=20, stream=True):
    body = {
        "model": "climate/chat",
        "stream": stream,
        "max_tokens": words,
        "messages": [{"role": "user", "content": "Piolet"}],
    }
    began = time.perf_counter()
    try:
        request = client.stream("POST", f"{address}/v1/chat/completions", json=body, headers=bearer(key))
        async with request as response:
            if response.status_code != 200:
                tally.ended[f"refused: {response.status_code}"] += 1
                return
            text = b""
            async for chunk in response.aiter_raw():
                if not text:
                    tally.first_byte_s.append(time.perf_counter() - began)
                text += chunk
        whole = text.endswith(b"data: [DONE]\n\n") if stream else text.endswith(b"}")
        tally.ended["whole" if whole else "silently cut"] += 1
    except httpx2.TransportError:
        tally.ended["broken"] += 1


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


async def keep_asking(address, key, clients, until, tally=None, **options):
    """Let so many clients ask one request after another until `until()` is true."""
    tally = tally or Tally()
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:

        async def one():
            while not until():
                await ask(client, address, key, tally, **options)

        await asyncio.gather(*(one() for _ in range(clients)))
    return tally
