"""What goes wrong: each fault strikes somewhere at random, and is healed after some seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from world import World

from piolet.lab import gpus, processes
from piolet.lab.gpu_faults import parse_faults
from piolet.lab.network import link_name

Heal = Callable[[], None]


@dataclass(frozen=True)
class Struck:
    """A fault that was there: `where` is a node, or what it struck; seconds since the epoch."""

    kind: str
    where: str
    from_s: float
    to_s: float


def node_kill(world: World, random: Random) -> tuple[str, Heal]:
    """Everything on a node dies at once, and Slurm finds it down, as it would after SlurmdTimeout."""
    node = random.choice(world.lab.nodes)
    mine = _node_identity(world, node)
    for process in processes.members(world.lab.directory):
        if process.node_mount == mine:
            _kill(process.pid)
    world.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=not responding", check=False)
    return node, world.repair


def link_cut(world: World, random: Random) -> tuple[str, Heal]:
    """A node loses its network."""
    node = random.choice(world.lab.nodes)
    link = link_name(world.lab, node)
    _ip(link, "down")

    def heal() -> None:
        _ip(link, "up")

    return node, heal


def disk_full(world: World, random: Random) -> tuple[str, Heal]:  # noqa: ARG001 - one of many
    """The file system of half of the logbooks has no byte left."""
    filler = world.roots[1].parent / "filler"
    with filler.open("wb") as out, suppress(OSError):
        while True:
            out.write(bytes(1 << 16))
            out.flush()
    return "small", filler.unlink


def gpu_xid(world: World, random: Random) -> tuple[str, Heal]:
    """A GPU falls off the bus."""
    node = random.choice(world.lab.nodes)
    directory = world.lab.node_directory(node) / "gpu"
    for fault in parse_faults({"xid": 79}):
        gpus.inject(directory, 1, fault)

    def heal() -> None:
        gpus.clear(directory, 1)

    return node, heal


def controller_kill(world: World, random: Random) -> tuple[str, Heal]:  # noqa: ARG001 - one of many
    """slurmctld dies, and comes back."""
    return _daemon_kill(world, "slurmctld")


def database_kill(world: World, random: Random) -> tuple[str, Heal]:  # noqa: ARG001 - one of many
    """slurmdbd dies, and comes back."""
    return _daemon_kill(world, "slurmdbd")


def recorder_kill(world: World, random: Random) -> tuple[str, Heal]:
    """Some recorders die."""
    agents = [process.pid for process in processes.members(world.lab.directory) if _is_recorder(process.pid)]
    chosen = random.sample(agents, min(len(agents), 3))
    for pid in chosen:
        _kill(pid)
    return f"{len(chosen)} recorders", lambda: None


def hung_mount(world: World, random: Random) -> tuple[str, Heal]:  # noqa: ARG001 - one of many
    """The server of a file system stops answering."""
    server = int((world.work / "data.pid").read_text())
    os.kill(server, signal.SIGSTOP)
    return "data", lambda: os.kill(server, signal.SIGCONT)


def registry_moods(world: World, random: Random) -> tuple[str, Heal]:  # noqa: ARG001 - one of many
    """The registry answers every other question with 500."""
    world.registry.moody = True

    def heal() -> None:
        world.registry.moody = False

    return "registry", heal


def clock_jump(world: World, random: Random) -> tuple[str, Heal]:
    """The clock of some jobs jumps by up to two hours, and back."""
    jump_s = random.choice((-1, 1)) * random.randint(2, 7200)
    world.jump(jump_s)
    return f"by {jump_s} s", lambda: world.jump(0)


KINDS = (
    node_kill,
    link_cut,
    disk_full,
    gpu_xid,
    gpu_xid,
    controller_kill,
    database_kill,
    recorder_kill,
    hung_mount,
    registry_moods,
    clock_jump,
)


def strike(world: World, random: Random, stop: Callable[[], bool]) -> list[Struck]:
    """Let one fault follow the other until `stop`; return those that were there. All are healed in the end."""
    struck = []
    while not stop():
        kind = random.choice(KINDS)
        from_s = time.time()
        with world.lock:
            where, heal = kind(world, random)
        world.say(f"{kind.__name__} {where}")
        _wait(random.uniform(2, 15), stop)
        with world.lock:
            heal()
        struck.append(Struck(kind.__name__, where, from_s, time.time()))
        _wait(random.uniform(0, 6), stop)
        world.repair()
    return struck


def _wait(seconds: float, stop: Callable[[], bool]) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s and not stop():
        time.sleep(0.1)


def _daemon_kill(world: World, label: str) -> tuple[str, Heal]:
    found = processes.daemons(world.lab.directory).get(label)
    if found:
        _kill(found.pid)
    return label, world.repair


def _node_identity(world: World, node: str) -> tuple[int, int]:
    status = world.lab.node_directory(node).stat()
    return status.st_dev, status.st_ino


def _is_recorder(pid: int) -> bool:
    try:
        return b"piolet.record" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _ip(link: str, state: str) -> None:
    subprocess.run(["ip", "link", "set", link, state], check=True, timeout=20)
