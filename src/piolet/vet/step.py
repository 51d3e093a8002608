"""Asking the nodes: one srun step in which each answers with one line, or one process on this machine."""

from __future__ import annotations

import math
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from piolet.core.errors import ParseError, PioletError, ToolTimeout
from piolet.core.nodeset import NodeSet
from piolet.core.run import PIPE, Result, Runner, SystemRunner, exit_status
from piolet.core.stopping import running
from piolet.tools.slurm import squeue, srun
from piolet.tools.slurm.allocation import het_groups
from piolet.vet.answers import Verdict, beside, judge_answers, merged
from piolet.vet.listening import listen
from piolet.vet.protocol import BEGUN, Protocol
from piolet.vet.tracing import traced

LEAST_S = 60.0
"""Seconds that a stage gets at least, before nodes that are silent are unknown."""

_HOME = Path(__file__).parents[2]
"""Where Piolet is: on the path for certain, or found by a hook that a bare Python has not."""

_MARGIN_S = 10.0
_GRACE_S = 5.0
"""Seconds that srun gets to end its step once the time is over, or all have answered."""

TIMED_OUT = 124
"""The status of a command that was ended because of its time, as timeout(1) has it."""

_BEGUN = re.compile(rf"{re.escape(BEGUN)}([\w.-]+)$", re.MULTILINE)
_LABEL = re.compile(r"^ *(\d+): (.*)$")
_TASK = re.compile(r"^srun: error: (?P<nodes>\S+): tasks? (?P<tasks>[\d,-]+): (?P<what>.*)$")
_LAUNCH = re.compile(r"^srun: error: .*failed on node (?P<nodes>\S+): (?P<what>.*)$")


def vet_nodes(
    nodes: NodeSet,
    protocol: Protocol,
    *,
    timeout_s: float | None = None,
    least_s: float = LEAST_S,
    runner: SystemRunner | None = None,
) -> Verdict:
    """Run `protocol` on `nodes` of the allocation that this process is in, stage by stage, and judge the answers.

    A stage asks the nodes that passed those before, in a step for each component of a heterogeneous job. Whatever
    becomes of its step, after `timeout_s` seconds the verdict is made from what was said until then; None: what its
    checks may take, and `least_s` at least.

    Raises:
        ToolMissing: there is no srun here.
    """
    runner = runner or SystemRunner()
    components: dict[int | None, NodeSet] = {group: NodeSet(names) for group, names in het_groups(os.environ).items()}

    def ask(asked: NodeSet, stage: Protocol) -> Verdict:
        patience = timeout_s or patience_s(stage, least_s)
        parts = [(group, asked & nodes) for group, nodes in components.items() if asked & nodes] or [(None, asked)]
        return beside([_vet_stage(nodes, stage, patience, runner, group) for group, nodes in parts])

    return _by_stages(nodes, protocol, ask)


def patience_s(stage: Protocol, least_s: float = LEAST_S) -> float:
    """Return how long a stage may take: more than all of its checks together."""
    return max(least_s, stage.longest_s + _MARGIN_S)


def _by_stages(nodes: NodeSet, protocol: Protocol, ask: Callable[[NodeSet, Protocol], Verdict]) -> Verdict:
    first, *rest = protocol.stages()
    verdict = traced(ask(nodes, first), first, ask)
    for stage in rest:
        if verdict.ready:
            verdict = merged(verdict, traced(ask(verdict.ready, stage), stage, ask))
    return verdict


def _vet_stage(
    nodes: NodeSet, protocol: Protocol, timeout_s: float, runner: SystemRunner, group: int | None
) -> Verdict:
    """Ask `nodes` in one step; `group` is their component of a heterogeneous job.

    One node that Slurm cannot reach may end the step for all: then those that were silent through no fault of their
    own are asked a second time.
    """
    deadline_s = time.monotonic() + timeout_s
    first = _ask(nodes, protocol, timeout_s, runner, group)
    texts, silence = tasks_output(first.stdout), silences(first, nodes)
    verdict = judge_answers(nodes, texts, protocol, silence=silence)
    silent = nodes - NodeSet(verdict.inventory)
    if not silent or first.rc in (0, TIMED_OUT):
        return verdict
    held = _held(runner, nodes)
    silence |= dict.fromkeys(silent - held, "the job has lost this node")
    again = silent & held - blamed(first)
    left_s = deadline_s - time.monotonic()
    if again and again != nodes and left_s > 1:
        second = _ask(again, protocol, left_s, runner, group)
        texts, silence = [*texts, *tasks_output(second.stdout)], silence | silences(second, again)
    return judge_answers(nodes, texts, protocol, silence=silence)


def vet_here(
    protocol: Protocol,
    *,
    environ: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    least_s: float = LEAST_S,
    runner: Runner | None = None,
) -> Verdict:
    """Run `protocol` on this machine, without a step; `environ` is the environment of the checks.

    Its time is that of `vet_nodes`.
    """
    environ = os.environ if environ is None else environ
    asking = runner or SystemRunner(environ)
    node = environ.get("SLURMD_NODENAME") or socket.gethostname()

    def ask(_: NodeSet, stage: Protocol) -> Verdict:
        return _vet_here(node, stage, timeout_s or patience_s(stage, least_s), asking)

    return _by_stages(NodeSet(node), protocol, ask)


def _vet_here(node: str, protocol: Protocol, timeout_s: float, runner: Runner) -> Verdict:
    result = _finished(runner, node_argv(protocol), timeout_s)
    reason = result.stderr.strip().splitlines()[-1:] or [f"exit status {result.rc}"]
    return judge_answers(NodeSet(node), [result.stdout], protocol, silence={node: reason[0]})


def node_argv(protocol: Protocol) -> list[str]:
    """Return the command that a node runs: this same Python and Piolet, on the shared file system.

    Where all checks are light, nothing is searched for again that was found here: it gets our path as it is.
    """
    if not all(check.light for check in protocol.checks):
        return [sys.executable, "-P", "-m", "piolet.vet", protocol.to_json()]
    path = [*(sys.path if sys.flags.safe_path else sys.path[1:]), str(_HOME)]
    start = f"import sys; sys.path[:] = {path}; from piolet.vet import light; light.main()"
    return [sys.executable, "-S", "-P", "-c", start, protocol.to_json()]


def step_argv(nodes: NodeSet, protocol: Protocol, timeout_s: float, group: int | None = None) -> list[str]:
    """Return the srun command of the step, one task a node.

    srun labels each line with its task, since it cuts lines at 1024 bytes and mixes the pieces. The step
    shares what other steps hold, outlives dead nodes and failing tasks, and starts no MPI.
    """
    step = srun.Step(
        nodes=len(nodes),
        ntasks=len(nodes),
        ntasks_per_node=1,
        nodelist=nodes,
        name="piolet-vet",
        chdir="/",
        immediate_s=max(1, math.ceil(timeout_s / 2)),
        label=True,
        overlap=True,
        extra=(
            *("--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--input=none", "--mpi=none", "--cpu-bind=none"),
            *(() if group is None else (f"--het-group={group}",)),
        ),
    )
    return srun.argv(step, node_argv(protocol))


def _ask(nodes: NodeSet, protocol: Protocol, timeout_s: float, runner: SystemRunner, group: int | None) -> Result:
    """Return what was said until all have answered, those that have not are given up, or the time is over."""
    argv = step_argv(nodes, protocol, timeout_s, group)
    with running(lambda: runner.start(argv, stdout=PIPE, stderr=PIPE, new_session=True), _GRACE_S) as step:
        heard = listen(step, len(nodes), timeout_s)
    status = TIMED_OUT if heard.gave_up else exit_status(step.wait())
    return Result(tuple(argv), status, heard.stdout, heard.stderr)


def _finished(runner: Runner, argv: Sequence[str], timeout_s: float) -> Result:
    """Run a command; one that does not end in time has said what it has said."""
    try:
        return runner.run(argv, timeout=timeout_s, ok=None)
    except ToolTimeout as error:
        return Result(error.argv, TIMED_OUT, error.stdout, error.stderr)


def tasks_output(text: str) -> list[str]:
    """Return what each task said, from labelled output: the pieces of its lines joined.

    Line ends are dropped, since srun adds one at each of its cuts; JSON has none inside.
    """
    said: dict[int, list[str]] = {}
    for line in text.split("\n"):
        match = _LABEL.match(line)
        if match:
            said.setdefault(int(match[1]), []).append(match[2])
    return ["".join(pieces) for pieces in said.values()]


def silences(result: Result, nodes: NodeSet) -> dict[str, str]:
    """Return for nodes that said nothing why, as far as srun's stderr tells it."""
    named = {node: what for found, what in _named(result.stderr) for node in found}
    if result.rc == TIMED_OUT:
        return dict.fromkeys(nodes, "not in time") | dict.fromkeys(nodes - begun(result.stdout), "never began") | named
    reasons = dict.fromkeys(nodes, _last_words(result.stderr)) if result.rc else {}
    return reasons | named


def begun(stdout: str) -> NodeSet:
    """Return the nodes that have said that they begin; all names that look like one, since output may be torn."""
    return NodeSet(match[1] for match in _BEGUN.finditer(stdout))


def _named(stderr: str) -> Iterator[tuple[NodeSet, str]]:
    """Yield nodes that srun names in an error, with what it says and the task's own last words."""
    for line in stderr.splitlines():
        match = _TASK.match(line) or _LAUNCH.match(line)
        if not match:
            continue
        tasks = match.groupdict().get("tasks")
        words = _last_words(stderr, label=tasks) if tasks and tasks.isdigit() else ""
        try:
            yield NodeSet(match["nodes"]), f"{match['what']} ({words})" if words else match["what"]
        except ParseError:
            continue


def _last_words(stderr: str, *, label: str = "srun") -> str:
    """Return the last line that srun (or the task of that label) wrote, without its prefix."""
    lines = [
        line.strip().removeprefix(f"{label}: ") for line in stderr.splitlines() if line.strip().startswith(f"{label}:")
    ]
    return lines[-1] if lines else ""


def blamed(result: Result) -> NodeSet:
    """Return the nodes that srun names in its errors."""
    return NodeSet(node for named, _ in _named(result.stderr) for node in named)


def _held(runner: Runner, nodes: NodeSet) -> NodeSet:
    """Return those of `nodes` that the job still has: Slurm takes away what is down. All, if it does not say."""
    try:
        jobs = squeue.jobs(runner, ids=[os.environ.get("SLURM_JOB_ID", "")])
    except PioletError:
        return nodes
    return nodes & jobs[0].nodes if jobs else nodes
