"""Engines and gateways on loopback: the example's model server as processes, and `piolet service gateway`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from piolet.core.sockets import free_port
from piolet.service.gateway import settings
from piolet.service.slurm.places import Endpoint, Place, write

CHECKOUT = Path(__file__).parents[2]
SERVER = CHECKOUT / "examples/05-model-on-slurm/server.py"
LLAMA = CHECKOUT / "examples/05-model-on-slurm/llama.py"
KEY = settings.new_key()


@dataclass
class Engine:
    """A model server; `beat` announces it as its attendant would."""

    port: int
    process: subprocess.Popen
    beats: int = 0
    api_key: str = "engine-key"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def announce(self, place: Place, job: int, period_s: int = 86400):
        self.beats += 1
        endpoint = Endpoint(job, 1, 0, "127.0.0.1", self.port, self.api_key, self.beats, period_s)
        write(place.endpoint(job), endpoint)


def start_engine(pause_ms=1.0):
    port = free_port()
    argv = [sys.executable, str(SERVER), str(CHECKOUT / "README.md"), "--port", str(port), "--pause-ms", str(pause_ms)]
    return Engine(port, subprocess.Popen(argv, env=os.environ | {"API_KEY": "engine-key"}))


@contextmanager
def llama():
    """Start llama.cpp with a tiny model."""
    argv, port = [sys.executable, str(LLAMA), "--host", "127.0.0.1", "--port"], free_port()
    engine = Engine(port, subprocess.Popen([*argv, str(port)], env=os.environ | {"API_KEY": "engine-key"}))
    try:
        wait_for(port, engine.process)
        while not httpx2.get(f"{engine.url}/health").is_success:
            time.sleep(0.02)
        yield engine
    finally:
        engine.process.terminate()
        engine.process.wait()


def wait_for(port, process):
    """Wait until somebody listens; fail if the process ends instead."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.02)
        else:
            return


@dataclass
class Running:
    """A gateway that runs; `place` is the directory of its service climate/chat, `head` more keys of its file."""

    directory: Path
    port: int
    head: str = ""
    process: subprocess.Popen | None = None
    log: Path = field(init=False)

    def __post_init__(self):
        self.log = self.directory / "gateway.log"

    @property
    def url(self):
        return f"{'https' if 'certificate' in self.head else 'http'}://127.0.0.1:{self.port}"

    @property
    def place(self):
        return Place(self.directory / "chat")

    def configure(self, more=""):
        """Write the gateway's file; a gateway that runs takes it over."""
        digest = settings.digest(KEY)
        text = f"""listen = "127.0.0.1:{self.port}"
{self.head}
nodes = "127.0.0.1"
patience_s = 1
[services."climate/chat"]
directory = "chat"
model = "chat"
[services."genome/other"]
urls = ["http://127.0.0.1:9"]
[keys.laptop]
project = "climate"
sha256 = "{digest}"
requests_per_minute = 0
{more}
"""
        path = self.directory / "gateway.toml"
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)
        return path

    def start(self):
        with self.log.open("a") as log:
            argv = [sys.executable, "-m", "piolet", "service", "gateway", str(self.directory / "gateway.toml")]
            self.process = subprocess.Popen(argv, stderr=log)
        wait_for(self.port, self.process)

    def end(self):
        self.process.terminate()
        assert self.process.wait(30) in {0, -15}

    def ask(self, words=4, *, stream=False, key=KEY, model="climate/chat", **more):
        body = {"model": model, "stream": stream, "max_tokens": words, "messages": [{"role": "user", "content": "a b"}]}
        headers = {"Authorization": f"Bearer {key}"}
        return httpx2.post(
            f"{self.url}/v1/chat/completions", content=json.dumps(body | more), headers=headers, timeout=30
        )


@contextmanager
def gateway(directory: Path, head=""):
    """Start a gateway with the service climate/chat, which has no replica yet."""
    running = Running(directory, free_port(), head)
    running.configure()
    running.start()
    try:
        yield running
    finally:
        running.end()


@contextmanager
def engines(count, pause_ms=1.0):
    """Start engines that answer."""
    found = [start_engine(pause_ms) for _ in range(count)]
    try:
        for each in found:
            wait_for(each.port, each.process)
        yield found
    finally:
        for each in found:
            each.process.kill()
            each.process.wait()
