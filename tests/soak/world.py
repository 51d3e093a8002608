"""The place of a soak: a lab whose nodes have a network each, a user, disks that fill and hang, a registry."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import oci_images

from piolet.lab import Lab, Network, Spec, bring_up

CHECKOUT = Path(__file__).resolve().parents[2]
PIOLET = Path(sys.executable).parent / "piolet"
USER = "piolet-soak"
IMAGE = "soak/shell:1"
SMALL_MB = 24


@dataclass
class World:
    """All that jobs use and faults break. `log` has one line for each event, with seconds since the beginning."""

    lab: Lab
    work: Path
    began_s: float
    registry: Registry
    lock: threading.RLock = field(default_factory=threading.RLock)
    log: list[str] = field(default_factory=list)

    @property
    def roots(self) -> tuple[Path, Path]:
        """The roots of logbooks: one with room, one on a small file system that a fault fills."""
        return self.work / "logbooks", self.work / "small" / "logbooks"

    @property
    def data(self) -> Path:
        """A mounted file system whose server a fault stops; the protocol `soak` asks for it."""
        return self.work / "data"

    @property
    def image(self) -> str:
        """The name of the registry's image."""
        return f"{self.registry.address}/{IMAGE}"

    @property
    def protocol(self) -> Path:
        """What jobs vet by."""
        return self.work / "soak.yaml"

    def say(self, what: str) -> None:
        """Write one line into the log and to stderr."""
        line = f"{time.monotonic() - self.began_s:7.1f} s  {what}"
        self.log.append(line)
        print(line, file=sys.stderr, flush=True)

    def environment(self, root: Path) -> dict[str, str]:
        """Return the environment of a login of the user."""
        entry = pwd.getpwnam(USER)
        login = {"HOME": entry.pw_dir, "USER": USER, "LOGNAME": USER, "LANG": "C.UTF-8", "PWD": str(CHECKOUT)}
        more = {
            "PIOLET_ROOT": str(root),
            "EDF_PATH": f"{CHECKOUT / 'examples/environments'}:{self.work / 'edf'}",
            "PIOLET_ENV_IMAGES": str(CHECKOUT / ".images"),
            "PIOLET_ENV_STORE": str(self.work / "store"),
            "PIOLET_RUN_RESTART_DELAY_S": "1",
        }
        return {"PATH": os.environ["PATH"]} | login | more | self.lab.environment()

    @property
    def jumping(self) -> dict[str, str]:
        """The variables of a command whose clock, and that of its whole job, the file `clock` moves."""
        return {"LD_PRELOAD": str(self.work / "jump.so"), "SOAK_CLOCK": str(self.work / "clock")}

    def jump(self, seconds: int) -> None:
        """Set by how much the clock of jumping commands is off."""
        with (self.work / "clock").open("r+b") as clock:
            clock.write(seconds.to_bytes(8, "little", signed=True))

    def start(self, argv: list[str], root: Path, output: Path, *, jumping: bool) -> subprocess.Popen[bytes]:
        """Start a command as the user; what it says goes to `output`. The clock of one that is `jumping` may jump."""
        entry = pwd.getpwnam(USER)
        with output.open("wb") as said:
            return subprocess.Popen(
                argv,
                cwd=CHECKOUT,
                env=self.environment(root) | (self.jumping if jumping else {}),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                user=entry.pw_uid,
                group=entry.pw_gid,
                extra_groups=[],
            )

    def slurm(self, *argv: str, check: bool = True) -> str:
        """Run one of Slurm's commands as root and return what it prints."""
        env = os.environ | self.lab.environment()
        done = subprocess.run(argv, check=check, capture_output=True, env=env, text=True, timeout=120)
        return done.stdout

    def repair(self) -> None:
        """Start every daemon that died, and tell Slurm that its nodes are well."""
        with self.lock:
            bring_up(self.lab.spec, self.lab.directory.parent)
            for node in self.lab.nodes:
                state = self.slurm("sinfo", "--noheader", f"--nodes={node}", "--format=%T", check=False).strip()
                if state.startswith("down"):
                    self.slurm("scontrol", "update", f"nodename={node}", "state=resume", check=False)


class Registry:
    """A proxy before a registry; while `moody`, every other answer is an error of the server's."""

    def __init__(self, behind: str) -> None:
        self.moody = False
        self.asked = 0
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked += 1
                if registry.moody and registry.asked % 2:
                    self.send_error(500, "a mood")
                    return
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._pass_on()

            do_HEAD = do_GET  # noqa: N815 - http.server's name

            def _pass_on(self) -> None:
                asked = urllib.request.Request(f"http://{behind}{self.path}", method=self.command)
                asked.headers.update({name: value for name, value in self.headers.items() if name != "Host"})
                try:
                    answer = urllib.request.urlopen(asked, timeout=30)
                except HTTPError as error:
                    answer = error
                body = answer.read()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                self.send_header("Content-Length", answer.headers.get("Content-Length") or str(len(body)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else body)

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def world(nodes: int) -> Iterator[World]:
    """Make the world, and leave nothing of it."""
    with contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="piolet-soak-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, work)
        work.chmod(0o755)
        stack.enter_context(_user())
        registry = Registry(stack.enter_context(_docker_registry(work / "registry")))
        stack.callback(registry.close)
        stack.enter_context(_small_file_system(work / "small"))
        stack.enter_context(_data(work))  # before the lab: nodes have mounts of their own
        labs = work / "labs"
        labs.mkdir()
        spec = Spec(name="soak", nodes=nodes, gpus=2, network=Network.NETNS, accounting=True)
        lab = bring_up(spec, labs).lab
        stack.callback(lab.down)
        made = World(lab, work, time.monotonic(), registry)
        for root in made.roots:
            root.mkdir()
            shutil.chown(root, USER)
        (work / "store").mkdir()
        shutil.chown(work / "store", USER)
        (work / "output").mkdir()
        (work / "clock").write_bytes(bytes(8))
        jump = Path(__file__).with_name("jump.c")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", work / "jump.so", jump], check=True)
        (work / "edf").mkdir()
        (work / "edf" / "pulled.toml").write_text(f'image = "{made.image}"\n')
        _log_in(registry.address)
        made.protocol.write_text(
            f"name: soak\ninclude: [quick]\nevals:\n- type: mounts\n  name: data\n  paths: [{made.data}]\n"
        )
        yield made


@contextlib.contextmanager
def _user() -> Iterator[None]:
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], check=True)
    try:
        yield
    finally:
        subprocess.run(["userdel", "--force", "--remove", USER], check=True, capture_output=True)


def _log_in(address: str) -> None:
    """Give the user the registry's password, as `docker login` would."""
    entry = pwd.getpwnam(USER)
    config = Path(entry.pw_dir) / ".docker" / "config.json"
    config.parent.mkdir()
    auth = base64.b64encode(f"{oci_images.USER}:{oci_images.PASSWORD}".encode()).decode()
    config.write_text(json.dumps({"auths": {address: {"auth": auth}}}))
    for path in (config.parent, config):
        shutil.chown(path, USER)


@contextlib.contextmanager
def _small_file_system(path: Path) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_MB}m", "piolet-soak", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def _data(work: Path) -> Iterator[None]:
    (work / "made").mkdir()
    (work / "made" / "sample").write_text("data\n")
    subprocess.run(["mksquashfs", work / "made", work / "data.sqsh", "-quiet", "-no-progress"], check=True)
    (work / "data").mkdir()
    server = subprocess.Popen(["squashfuse", "-f", "-o", "allow_other", work / "data.sqsh", work / "data"])
    try:
        while not (work / "data" / "sample").exists():
            assert server.poll() is None
            time.sleep(0.05)
        (work / "data.pid").write_text(str(server.pid))
        yield
    finally:
        subprocess.run(["umount", "--lazy", work / "data"], check=False)
        server.kill()
        server.wait()


@contextlib.contextmanager
def _docker_registry(directory: Path) -> Iterator[str]:
    """Run a registry with one image, `soak/shell:1`, and yield its address."""
    directory.mkdir()
    with contextlib.contextmanager(oci_images.serve)(directory) as registry:
        layers = [oci_images.busybox_layer()]
        registry.push(oci_images.layout(directory / "image", layers, Env=["PATH=/bin"]), IMAGE)
        yield registry.host
