"""The sum of what all ranks hold is right, and comes as fast as it must: torch.distributed over gloo, NCCL or RCCL.

Each GPU is a rank (on a host without GPUs each node is). One slow rank makes all slow, so a bandwidth that is too low
is told of all of them. Over NCCL and RCCL this was never run by the tests.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import socket
import sys
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from piolet.core.errors import ToolTimeout
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Status
from piolet.core.run import Runner, SystemRunner
from piolet.tools.slurm import scontrol
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.collective import Asked
from piolet.vet.gpus import slurm_indexes

_LOOPBACK = "127.0.0.1"
_FIRST_PORT, _PORTS = 20000, 12000
"""Below the ports that Linux gives to whoever asks for any (ip_local_port_range)."""

_MARGIN_S = 2.0
_MIB = 1 << 20
_INSTALL = "install torch in the Python that runs Piolet, on a file system that the nodes see"
_MEETING = "look at the nodes named; between nodes, ports 20000 to 31999 must be open within the cluster"


@dataclass(frozen=True, slots=True)
class Parameters:
    """`min_gb_per_s`: bus bandwidth of the largest size, in 10^9 bytes per second; left out, it is only told.

    `scope`: all ranks (`full`), one a node (`internode`), or those of each node by itself (`intranode`). `sizes_mib`:
    what each rank holds. `ranks`: a node; left out, one a GPU, and without GPUs one (two if `intranode`). The median of
    `repetitions` counts, after `warmup` that do not. `groups`: node sets that reduce apart; left out, all together.
    """

    min_gb_per_s: Annotated[float, Gt(0)] | None = None
    scope: Literal["full", "internode", "intranode"] = "full"
    sizes_mib: Annotated[tuple[Annotated[int, Ge(1), Le(65536)], ...], MinLen(1)] = (1, 16, 256)
    groups: tuple[str, ...] = ()
    ranks: Annotated[int, Ge(1), Le(64)] | None = None
    warmup: Annotated[int, Ge(0)] = 3
    repetitions: Annotated[int, Ge(3)] = 5


@dataclass(frozen=True, slots=True)
class Observation:
    """What the slowest rank of this node saw: seconds of each repetition by size (MiB); or what went wrong."""

    ranks: int = 0
    nodes: int = 0
    backend: str = ""
    durations_s: Mapping[int, tuple[float, ...]] | None = None
    wrong: int = 0
    trouble: str = ""
    remedy: str = _MEETING


def observe(parameters: Parameters, context: Context) -> Observation:
    """Run the ranks of this node; those of other nodes are run by their own check, at the same time."""
    gpus = len(slurm_indexes(context.environ) or ())
    lacking = _lacking(gpus)
    if lacking:
        return lacking
    nodes = members(parameters, context.environ)
    here = _here(context.environ)
    per_node = ranks_here(parameters, gpus)
    if len(nodes) * per_node == 1:
        return Observation(trouble="one rank alone has nobody to reduce with", remedy="vet more nodes, or set `ranks`")
    first = nodes.index(here) * per_node
    port = port_of(parameters, context.environ, nodes)
    timeout_s = context.timeout_s - _MARGIN_S
    asked = [
        Asked(
            rank=first + local,
            nodes=nodes,
            per_node=per_node,
            gpu=local if gpus else -1,
            address=address_of(nodes),
            port=port,
            sizes_mib=parameters.sizes_mib,
            warmup=parameters.warmup,
            repetitions=parameters.repetitions,
            timeout_s=timeout_s,
        )
        for local in range(per_node)
    ]
    return seen(asked, said_by(asked, timeout_s))


def _here(environ: Mapping[str, str]) -> str:
    return environ.get("SLURMD_NODENAME") or socket.gethostname()


def _lacking(gpus: int) -> Observation | None:
    """Say what keeps torch from measuring here, if anything does; loading it is slow, so only where GPUs are."""
    if importlib.util.find_spec("torch") is None:
        return Observation(trouble="torch is not installed here", remedy=_INSTALL)
    if gpus == 0:
        return None
    try:
        torch: Any = importlib.import_module("torch")
        visible = torch.cuda.device_count()
    except Exception as error:  # noqa: BLE001 - a library without its driver raises errors of its own
        return Observation(trouble=f"torch cannot be used: {error}", remedy=_INSTALL)
    if visible < gpus:
        remedy = "install the torch of this GPU's maker (CUDA or ROCm), or look at the driver: gpu_count"
        return Observation(trouble=f"torch sees {visible} of {gpus} allocated GPUs", remedy=remedy)
    return None


def members(parameters: Parameters, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the nodes of the group: those of the step, or those of its group that this one is in, or this one."""
    here = _here(environ)
    if parameters.scope == "intranode":
        return (here,)
    step = tuple(NodeSet(environ.get("SLURM_STEP_NODELIST", here)))
    groups = [*(tuple(NodeSet(group)) for group in parameters.groups), step]
    return next((group for group in groups if here in group), (here,))


def ranks_here(parameters: Parameters, gpus: int) -> int:
    """Return how many ranks each node has."""
    if parameters.scope == "internode":
        return 1
    return parameters.ranks or gpus or (2 if parameters.scope == "intranode" else 1)


def port_of(parameters: Parameters, environ: Mapping[str, str], nodes: Sequence[str]) -> int:
    """Return the port at which this check of this step meets: the same for all its ranks, another for others'."""
    step = [environ.get(f"SLURM_{name}", "") for name in ("CLUSTER_NAME", "JOB_ID", "STEP_ID")]
    return _FIRST_PORT + zlib.crc32(repr((step, nodes[0], parameters)).encode()) % _PORTS


def address_of(nodes: Sequence[str]) -> str:
    """Return the address of the first node: by its name, or else as Slurm reaches it."""
    if len(nodes) == 1:
        return _LOOPBACK
    try:
        return socket.gethostbyname(nodes[0])
    except OSError:
        [record] = scontrol.node_records(SystemRunner(), NodeSet(nodes[0]))
        return socket.gethostbyname(record.address)


def said_by(asked: Sequence[Asked], timeout_s: float) -> list[dict[str, Any]]:
    """Start the ranks and return what each said; one that says nothing in time is ended."""
    speech = {"NCCL_DEBUG": "WARN"}
    if asked[0].address == _LOOPBACK:
        speech |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    runner = SystemRunner(speech)
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda each: _said(runner, each, timeout_s + 1), asked))


def _said(runner: Runner, asked: Asked, timeout_s: float) -> dict[str, Any]:
    """Run a rank and return its last line as it meant it."""
    argv = [sys.executable, "-m", "piolet.vet.collective", json.dumps(asdict(asked))]
    try:
        text = runner.run(argv, timeout=timeout_s, ok=None).stdout
        found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    except (ToolTimeout, ValueError, IndexError):
        return {"trouble": f"rank {asked.rank} ended without an answer"}
    return found


def seen(asked: Sequence[Asked], said: Sequence[Mapping[str, Any]]) -> Observation:
    """Make one observation of what the ranks of this node said: any trouble, or the slowest of them. Pure."""
    group = Observation(asked[0].size, len(asked[0].nodes), "gloo" if asked[0].gpu < 0 else "nccl")
    troubles = [each["trouble"] for each in said if "trouble" in each]
    if troubles:
        return Observation(group.ranks, group.nodes, group.backend, trouble=troubles[0])
    slowest = max(said, key=lambda each: median(each["durations_s"][-1]))
    durations_s = {mib: tuple(each) for mib, each in zip(asked[0].sizes_mib, slowest["durations_s"], strict=True)}
    wrong = sum(each["wrong"] for each in said)
    return Observation(group.ranks, group.nodes, group.backend, durations_s, wrong)


def bus_gb_per_s(mib: int, seconds: float, ranks: int) -> float:
    """Return the bus bandwidth of an all-reduce, in 10^9 bytes/s: size / time * 2(n-1)/n.

    Source: PERFORMANCE.md of NVIDIA's nccl-tests; it compares with the speed of the links, whatever n is.
    """
    return mib * _MIB / seconds * 2 * (ranks - 1) / ranks / 1e9


def judge(observation: Observation, parameters: Parameters) -> Judgement:
    """Fail on any wrong sum, then on the bandwidth of the largest size."""
    if observation.trouble or not observation.durations_s:
        came_through = 0.0 if observation.ranks else None
        return Judgement(Status.UNKNOWN, observation.trouble, came_through, unit="GB/s", remedy=observation.remedy)
    nodes = "1 node" if observation.nodes == 1 else f"{observation.nodes} nodes"
    group = f"{observation.ranks} ranks on {nodes} ({observation.backend})"
    if observation.wrong:
        reason = f"{group}: {observation.wrong} sums are wrong"
        return Judgement(Status.FAIL, reason, observation.wrong, 0, "sums", "leave out the nodes that are named")
    rates = {
        mib: bus_gb_per_s(mib, median(durations_s), observation.ranks)
        for mib, durations_s in observation.durations_s.items()
    }
    rate, least = round(rates[max(rates)], 3), parameters.min_gb_per_s
    told = ", ".join(f"{each:.3g} GB/s at {mib} MiB" for mib, each in sorted(rates.items()))
    if least is None or rate >= least:
        return Judgement(Status.PASS, f"{group}: {told}", rate, least, "GB/s")
    remedy = "one slow rank slows all; `scope: intranode` measures each node by itself"
    return Judgement(Status.FAIL, f"{group}: {told}", rate, least, "GB/s", remedy)


CHECK = Check(
    name="all_reduce",
    version=1,
    summary="GPUs and nodes sum what they hold rightly, and as fast as they must",
    source="the site: A100 228, H100 460 GB/s within a node are published figures; bus bandwidth as in nccl-tests",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    better="higher",
    quiet=True,
    typical_s=20.0,
    timeout_s=60.0,
    collective=lambda parameters: parameters.scope != "intranode",
)
