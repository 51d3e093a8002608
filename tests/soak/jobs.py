"""Jobs of all kinds, some at a time: who asked for what, and how the command that asked has ended."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from world import PIOLET, World

AT_ONCE = 5
LAST_S = 240.0
"""Seconds in which everything that was asked for must have ended, once nothing is broken any more."""


@dataclass
class Asked:
    """A command of a user. `abandoned` was killed by the soak itself, as by a lost login."""

    kind: str
    argv: list[str]
    root: Path
    output: Path
    process: subprocess.Popen[bytes]
    began_s: float
    abandoned: bool = False

    @property
    def said(self) -> str:
        """What it printed."""
        return self.output.read_text(errors="replace")


def argv_of(world: World, random: Random) -> tuple[str, list[str]]:
    """Return a command that a user could type, and its kind."""
    nodes = random.randint(1, 4)
    run = [str(PIOLET), "run", "-N", str(nodes)]
    vetted = ["--spares", str(random.randint(0, 3)), "--vet", str(world.protocol)]
    seconds = str(random.randint(1, 12))
    kinds = {
        "plain": [*run, *vetted, "--record", "--", "sleep", seconds],
        "failing": [*run, "--record", "--", "sh", "-c", f"sleep {seconds}; exit 7"],
        "container": [*run, *vetted, "--env", "demo", "--", "sh", "-c", f"sleep {seconds}"],
        "pulled": [*run, "--env", "pulled", "--", "cat", "/etc/release"],
        "jumping": [*run, *vetted, "--record", "--", "sleep", seconds],
        "again": [*run, *vetted, "--restarts", "2", "--record", "--", "sleep", seconds],
        "step": ["srun", "-N", str(nodes), "--environment=demo", "sleep", seconds],
        "pull": [str(PIOLET), "env", "pull", world.image],
    }
    kind = random.choice([*kinds, "plain", "plain"])
    return kind, kinds[kind]


def ask(world: World, random: Random, stop: Callable[[], bool]) -> list[Asked]:
    """Keep some jobs going until `stop`, then wait for the rest; return all of them."""
    asked: list[Asked] = []
    while not stop():
        running = [each for each in asked if each.process.poll() is None]
        if running and random.random() < 0.01:
            leave(random.choice(running), world)
        if len(running) < AT_ONCE:
            asked.append(_start(world, random, len(asked)))
        time.sleep(random.uniform(0.2, 1.0))
    return asked


def leave(one: Asked, world: World) -> None:
    """End the command as a lost login does: the job must go on without it."""
    one.abandoned = True
    one.process.send_signal(signal.SIGKILL)
    world.say(f"the login of {one.output.name} is lost")


def finish(asked: list[Asked]) -> list[Asked]:
    """Wait for all that was asked for, and return those that have not ended in time."""
    until_s = time.monotonic() + LAST_S
    while any(each.process.poll() is None for each in asked) and time.monotonic() < until_s:
        time.sleep(0.5)
    late = [each for each in asked if each.process.poll() is None]
    for each in late:
        each.process.kill()
        each.process.wait()
    return late


def _start(world: World, random: Random, number: int) -> Asked:
    kind, argv = argv_of(world, random)
    root = random.choice(world.roots)
    output = world.work / "output" / f"{number:04d}-{kind}"
    return Asked(kind, argv, root, output, world.start(argv, root, output, jumping=kind == "jumping"), time.time())
