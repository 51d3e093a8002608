"""What the gateway adds to a request, and what it does when engines die under load.

    python bench/gateway.py [--runs 300] [--streams 500] [--seconds 60]

First one client asks for short answers: of the engine itself, through the gateway, and through nginx (the peer, if it
is installed), in turns. Then so many clients stream through the gateway from three engines, of which one is killed
every 5 s and started again elsewhere. Engines, gateway and clients share this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from common import Result, measured, report, version

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from model_clients import Tally, keep_asking
from model_servers import KEY, Engine, Running, engines, gateway, start_engine, wait_for

from piolet.core.sockets import free_port

KILL_EVERY_S = 5.0


def main() -> None:
    """Measure and report."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="piolet-bench-") as directory, gateway(Path(directory)) as front:
        times = measure_latency(front, Path(directory), asked.runs)
        loaded = measure_load(front, asked.streams, asked.seconds)
    absent = [] if "nginx" in times else ["nginx: apt-get install nginx"]
    versions = {name: f"{name} {importlib.metadata.version(name)}" for name in ("uvicorn", "httpx2")}
    report(__file__, [*latencies(times), *loaded], absent=absent, nginx=version("nginx", "-v"), **versions)


def latencies(times: dict[str, list[float]]) -> list[Result]:
    """Return what an answer takes through the gateway, and what it takes more than one of the engine itself."""
    ours, engine = times["gateway"], times["engine"]
    results = [measured("answer through the gateway", "ms", ours, engine, peer="engine")]
    more = {name: [one - bare for one, bare in zip(values, engine, strict=True)] for name, values in times.items()}
    if "nginx" in times:
        results.append(measured("answer through the gateway", "ms", ours, times["nginx"], peer="nginx"))
    return [*results, measured("added by the gateway", "ms", more["gateway"])]


def measure_latency(front: Running, directory: Path, runs: int) -> dict[str, list[float]]:
    """Time whole answers of one word, in turns over one connection each."""
    with engines(1, pause_ms=0) as (engine,), proxy(directory, engine) as peer:
        engine.announce(front.place, 1)
        wait_until(lambda: front.ask().is_success)
        ways = {"engine": (engine.url, engine.api_key), "gateway": (front.url, KEY)}
        ways |= {"nginx": (peer, engine.api_key)} if peer else {}
        times = in_turns(ways, runs)
        front.place.endpoint(1).unlink()
    return times


def in_turns(ways: dict[str, tuple[str, str]], runs: int) -> dict[str, list[float]]:
    """Ask each way in turn; the first tenth is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    clients = {name: httpx2.Client(trust_env=False, timeout=30) for name in ways}
    for _ in range(runs + runs // 10):
        for name, (url, key) in ways.items():
            body = {"model": "climate/chat", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
            began = time.perf_counter()
            headers = {"Authorization": f"Bearer {key}"}
            clients[name].post(f"{url}/v1/chat/completions", json=body, headers=headers).raise_for_status()
            times[name].append((time.perf_counter() - began) * 1000)
    return {name: values[runs // 10 :] for name, values in times.items()}


def measure_load(front: Running, streams: int, seconds: float) -> list[Result]:
    """Stream from three engines while one after the other is killed."""
    tally, killed = Tally(), [0]
    with engines(3, pause_ms=100) as fleet:
        for job, engine in enumerate(fleet, start=1):
            engine.announce(front.place, job)
        wait_until(lambda: front.ask().is_success)
        over = time.monotonic() + seconds
        asyncio.run(_loaded(front, fleet, streams, over, tally=tally, killed=killed))
    print(f"{killed[0]} engines killed in {seconds:g} s under {streams} streams: {tally.ended}")
    lasting = f"{streams} streams while an engine dies every {KILL_EVERY_S:g} s"
    ends = [measured(f"{lasting}: {name}", "", [count]) for name, count in tally.ended.items()]
    return [*ends, measured(f"{lasting}: first byte", "s", tally.first_byte_s)]


async def _loaded(
    front: Running, fleet: list[Engine], streams: int, over: float, *, tally: Tally, killed: list[int]
) -> None:
    async def kill_and_replace() -> None:
        job = len(fleet)
        while time.monotonic() + KILL_EVERY_S < over:
            await asyncio.sleep(KILL_EVERY_S)
            victim = killed[0] % len(fleet)
            fleet[victim].process.kill()
            killed[0] += 1
            job += 1
            front.place.endpoint(job - len(fleet)).unlink()
            fleet[victim] = start_engine(pause_ms=100)
            await asyncio.to_thread(wait_for, fleet[victim].port, fleet[victim].process)
            fleet[victim].announce(front.place, job)

    asking = keep_asking(front.url, KEY, streams, lambda: time.monotonic() > over, tally, words=30)
    await asyncio.gather(asking, kill_and_replace())


@contextmanager
def proxy(directory: Path, engine: Engine) -> Iterator[str]:
    """Run nginx in front of the engine, and yield its address; nothing if it is not installed."""
    if not shutil.which("nginx"):
        yield ""
        return
    port = free_port()
    (directory / "nginx.conf").write_text(
        f"pid {directory}/nginx.pid; daemon off; error_log {directory}/error.log; events {{}}\n"
        f"http {{ access_log off; upstream engine {{ server 127.0.0.1:{engine.port}; keepalive 4; }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://engine; proxy_http_version 1.1;\n"
        'proxy_set_header Connection ""; proxy_buffering off; } } }\n'
    )
    process = subprocess.Popen(["nginx", "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")])
    wait_for(port, process)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    while not holds():
        time.sleep(0.1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    return parser.parse_args()


if __name__ == "__main__":
    main()
