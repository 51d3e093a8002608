"""A step with one process on each node, to which lines go and from which answers come: Slurm is the channel.

What a node says begins with a marker; everything else is noise of its environment. A node that dies, is silent, or does
not get on, is lost: the others do without it.
"""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from piolet.core.errors import ParseError
from piolet.core.nodeset import NodeSet
from piolet.core.run import PIPE, STDOUT, Process, SystemRunner, end
from piolet.data.staging.node import MARKER
from piolet.tools.slurm import srun

_GRACE_S = 10.0
_LOOK_S = 0.2
_LABEL = re.compile(r"^ *\d+: ")
_DEATH = re.compile(r"^srun: error: (?P<nodes>\S+): tasks? [\d,-]+: (?P<what>.*)$")
_ENDED = "the step has ended"

Answer = tuple[str, dict[str, Any]]


def step_argv(nodes: NodeSet, job: int | None) -> list[str]:
    """Return the srun command: one task a node, beside other steps, that outlives dead nodes and failing tasks."""
    step = srun.Step(
        nodes=len(nodes),
        ntasks=len(nodes),
        ntasks_per_node=1,
        nodelist=nodes,
        name="piolet-stage",
        chdir="/",
        job=job,
        label=True,
        overlap=True,
        extra=("--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--mpi=none", "--cpu-bind=none"),
    )
    return srun.argv(step, [sys.executable, "-m", "piolet.data.staging.node"])


@contextmanager
def opened(nodes: NodeSet, runner: SystemRunner, job: int | None = None) -> Iterator[Session]:
    """Yield a step on `nodes` of the allocation of this process, or of `job`; at the end its input ends, then itself.

    Raises:
        ToolMissing: there is no srun here.
    """
    process = runner.start(step_argv(nodes, job), stdin=PIPE, stdout=PIPE, stderr=STDOUT, new_session=True)
    session = Session(process, nodes)
    reader = threading.Thread(target=session.read, daemon=True)
    reader.start()
    try:
        yield session
        session.hang_up()
        session.hear("gone", stall_s=_GRACE_S)
    finally:
        end(process, _GRACE_S)
        reader.join(_GRACE_S)


@dataclass(slots=True)
class Session:
    """A running step. `lost` says of nodes that are out why they are; `last_words` is what srun said last."""

    process: Process
    nodes: NodeSet
    lost: dict[str, str] = field(default_factory=dict)
    last_words: str = ""
    _answers: queue.SimpleQueue[Answer] = field(default_factory=queue.SimpleQueue)
    _heard_s: dict[str, float] = field(default_factory=dict)

    @property
    def alive(self) -> list[str]:
        """The nodes that are not lost, in order."""
        return [node for node in self.nodes if node not in self.lost]

    def read(self) -> None:
        """Take in what the step says until it ends; runs in a thread of its own."""
        for line in self.process.stdout or ():
            for answer in self._parsed(line.rstrip("\n")):
                self._answers.put(answer)
        for node in self.nodes:
            self._answers.put((node, {"gone": True, "failed": self.last_words or _ENDED}))

    def _parsed(self, line: str) -> Iterator[Answer]:
        said = _LABEL.sub("", line)
        if said.startswith(MARKER):
            with suppress(ValueError, KeyError):  # a torn line is noise
                found = json.loads(said)
                if (node := found.pop("piolet_stage")) in self.nodes:
                    yield node, found
        elif match := _DEATH.match(line):
            with suppress(ParseError):
                yield from ((node, {"gone": True, "failed": match["what"]}) for node in NodeSet(match["nodes"]))
        elif line.startswith("srun: "):
            self.last_words = line.removeprefix("srun: ").removeprefix("error: ")

    def tell(self, line: str) -> None:
        """Say a line to every node; if the step has ended, `hear` tells."""
        with suppress(BrokenPipeError):
            print(line, file=self.process.stdin, flush=True)

    def command(self, do: str, **words: object) -> None:
        """Tell every node what to do."""
        self.tell(json.dumps({"do": do, **words}))

    def hang_up(self) -> None:
        """End the input of every node."""
        with suppress(BrokenPipeError):
            if self.process.stdin:
                self.process.stdin.close()

    def hear(
        self,
        key: str,
        *,
        stall_s: float,
        silent_s: float = float("inf"),
        got_on: Callable[[str, Mapping[str, Any]], bool] = lambda *_: False,
    ) -> dict[str, Any]:
        """Return what each living node says under `key`.

        A node is lost if it says nothing for `silent_s` seconds, or nothing for `stall_s` that `got_on` takes as
        progress, which is shown all that is said.
        """
        began_s = time.monotonic()
        since_s = dict.fromkeys(self.alive, began_s)
        self._heard_s = dict.fromkeys(self.alive, began_s)
        found: dict[str, Any] = {}
        while waiting := [node for node in self.alive if node not in found]:
            with suppress(queue.Empty):
                node, said = self._answers.get(timeout=_LOOK_S)
                self._heard_s[node] = time.monotonic()
                found |= {node: said[key]} if key in said else {}
                for reason in said.keys() & {"refused", "failed"} if node not in found else ():
                    self.lost.setdefault(node, str(said[reason]))
                if got_on(node, said):
                    since_s[node] = time.monotonic()
            self._lose(waiting, since_s, stall_s, silent_s)
        return found

    def _lose(self, waiting: list[str], since_s: Mapping[str, float], stall_s: float, silent_s: float) -> None:
        now_s = time.monotonic()
        for node in waiting:
            if now_s - self._heard_s[node] > silent_s:
                self.lost.setdefault(node, f"it said nothing for {silent_s:.0f} s")
            elif now_s - since_s[node] > stall_s:
                self.lost.setdefault(node, f"it did not get on for {stall_s:.0f} s")
