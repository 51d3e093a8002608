"""Which services answer to anybody: one harmless GET each, without credentials, by what the answer shows.

Paths and answers as the services document them; only marimo was tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2

_TIMEOUT_S = 2.0
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Service:
    """A service that anybody may use if a path of it answers with `sign`; `half` if only a part of it is open."""

    name: str
    path: str
    sign: re.Pattern[str]
    half: bool = False


SERVICES = tuple(
    Service(name, path, re.compile(sign))
    for name, path, sign in (
        ("Jupyter", "/api/contents", r'"type"\s*:\s*"directory"'),
        ("marimo", "/", r"<marimo-"),
        ("an inference server (OpenAI's API)", "/v1/models", r'"data"\s*:\s*\['),
        ("Text Generation Inference", "/info", r'"model_id"'),
        ("Ollama", "/api/tags", r'"models"\s*:'),
        ("an inference server (KServe's API)", "/v2", r'"extensions"\s*:'),
        ("Ray", "/api/version", r'"ray_version"'),
        ("MLflow", "/api/2.0/mlflow/experiments/search?max_results=1", r'"experiment_id"'),
        ("TensorBoard", "/data/environment", r'"data_location"'),
        ("Gradio", "/config", r'"components"\s*:'),
        ("Streamlit", "/", r"<title>Streamlit"),
    )
)
"""What gives code, models or data to whoever asks."""

HALF_GUARDED = Service(
    "an inference server", "/openapi.json", re.compile(r'"/(?:invocations|tokenize|pooling)"'), half=True
)
"""vLLM's --api-key guards /v1 alone: who has no key may still use these."""


def open_services(host: str, port: int) -> Iterator[Service]:
    """Yield what anybody gets at an address; nothing if what listens there does not speak HTTP."""
    shown = f"[{host}]" if ":" in host else host
    for scheme in ("http", "https"):
        base = f"{scheme}://{shown}:{port}"
        # any certificate will do, and no proxy: it is asked who may come in, not who is there
        with httpx2.Client(base_url=base, timeout=_TIMEOUT_S, verify=False, trust_env=False) as client:
            try:
                yield from _open(client)
            except httpx2.HTTPError:
                continue
            return


def _open(client: httpx2.Client) -> Iterator[Service]:
    found = next((service for service in SERVICES if _shows(client, service)), None)
    if found:
        yield found
    elif _shows(client, HALF_GUARDED):
        yield HALF_GUARDED


def _shows(client: httpx2.Client, service: Service) -> bool:
    with client.stream("GET", service.path) as answer:
        body = next(answer.iter_bytes(_MOST_BYTES), b"") if answer.status_code == httpx2.codes.OK else b""
    return bool(service.sign.search(body.decode("utf-8", "replace")))
