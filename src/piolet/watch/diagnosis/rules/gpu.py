"""Rules about single GPUs: errors of the driver and the memory, NVLink, heat, power, and plain slowness."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from piolet.core.nouns import Severity
from piolet.logbook.records import Evidence
from piolet.watch.diagnosis.case import BUSY, Case, Episode
from piolet.watch.diagnosis.rule import Level, Rule, Suspicion

COALESCE_NS = 5_000_000_000
"""Errors of one GPU within 5 s are one (gpud)."""

SLOWED = frozenset({"slower-than-before", "slower-than-past", "imbalance", "slow-gpu", "slow-rank"})
ENDS = frozenset({"hang", "first-failure", "slower-than-before"})

XIDS = {
    13: ("graphics engine exception", False, "look for an illegal access in the program (compute-sanitizer)"),
    31: ("memory page fault", False, "look for an illegal access in the program (compute-sanitizer)"),
    43: ("the GPU stopped processing a program's channel", False, "read the program's last lines"),
    45: ("a channel was removed, as when a program ends", False, "look for what ended the program before"),
    48: ("double-bit ECC error", True, "leave the node out and tell the operators: reset the GPU"),
    63: ("row remapping recorded", True, "tell the operators: reset the GPU when the node is idle"),
    64: ("row remapping failed", True, "leave the node out and tell the operators: replace the GPU"),
    74: ("NVLink error", True, "leave the node out and tell the operators: check NVLink and the fabric manager"),
    79: ("GPU has fallen off the bus", True, "leave the node out and tell the operators: reboot it"),
    92: ("many single-bit errors", True, "tell the operators: run the field diagnostic"),
    94: ("contained ECC error", True, "restart from the last checkpoint; tell the operators"),
    95: ("uncontained ECC error", True, "leave the node out and tell the operators: reset the GPU"),
    119: ("GSP does not answer", True, "leave the node out and tell the operators: reset the GPU"),
    120: ("GSP error", True, "leave the node out and tell the operators: reset the GPU"),
}
"""Xid -> what it is, whether the hardware is to blame, what to do (NVIDIA, "Xid Errors")."""

_UNKNOWN_XID = ("an Xid that this catalogue does not know", True, "look it up in NVIDIA's Xid catalogue")


def _xid(case: Case) -> Iterator[Suspicion]:
    rows = case.query(
        "SELECT node, gpu, time_ns, code, message FROM events WHERE kind = 'xid' AND time_ns < $end ORDER BY ALL",
        end=case.interval.end_ns,
    )
    for (node, gpu), each in groupby(rows, key=lambda row: (row[0], row[1])):
        events = list(each)
        first = events[0]
        together = [row for row in events if row[2] - first[2] <= COALESCE_NS]
        hardware = [row for row in together if row[3].isdigit() and XIDS.get(int(row[3]), _UNKNOWN_XID)[1]]
        worst = (hardware or together)[0]
        name, faulty, action = XIDS.get(int(worst[3]), _UNKNOWN_XID) if worst[3].isdigit() else _UNKNOWN_XID
        yield Suspicion(
            nodes=(node,),
            gpu=gpu,
            from_ns=first[2],
            to_ns=events[-1][2],
            confidence=0.95 if faulty else 0.6,
            severity=Severity.ERROR,
            reason=f"Xid {worst[3]}: {name}" + (f", {len(events)} messages" if len(events) > 1 else ""),
            next_step=action,
            evidence=tuple(
                Evidence(row[4] or f"Xid {row[3]}", row[3], node=node, gpu=gpu, from_ns=row[2], to_ns=row[2])
                for row in events[:4]
            ),
        )


XID = Rule(
    name="xid",
    title="GPU error reported by the driver",
    level=Level.HARDWARE,
    knowledge="The driver reports errors as Xid numbers; some blame the GPU, others (13, 31, 43, 45) the program.",
    source="NVIDIA, Xid Errors; gpud's catalogue; Meta: GPUs were 148 of 419 interruptions of Llama 3's training",
    refuted_by="the same program raises the same Xid on other nodes",
    next_step="see the action of the Xid",
    needs=("events",),
    judge=_xid,
    explains=SLOWED | ENDS | {"idle-gpu", "ecc", "nvlink"},
)


def _counter(
    case: Case, column: str, what: str, *, severity: Severity, confidence: float, least: int
) -> Iterator[Suspicion]:
    rows = case.query(
        f"""
        WITH steps AS (
            SELECT node, gpu, time_ns, {column} - lag({column}) OVER (PARTITION BY node, gpu ORDER BY time_ns) AS more
            FROM gpu WHERE time_ns < $end
        )
        SELECT node, gpu, min(time_ns), max(time_ns), sum(more) FROM steps WHERE more > 0
        GROUP BY ALL HAVING sum(more) >= $least ORDER BY 3
        """,  # noqa: S608 - a column of ours
        end=case.interval.end_ns,
        least=least,
    )
    for node, gpu, first, last, count in rows:
        fact = Evidence(what, int(count), 0, family="gpu", column=column, node=node, gpu=gpu, from_ns=first, to_ns=last)
        yield Suspicion((node,), first, last, confidence, f"{int(count)} {what}", (fact,), gpu=gpu, severity=severity)


def _ecc(case: Case) -> Iterator[Suspicion]:
    return _counter(
        case, "ecc_uncorrected", "uncorrected memory errors", severity=Severity.ERROR, confidence=0.9, least=1
    )


ECC = Rule(
    name="ecc",
    title="uncorrected memory error of a GPU",
    level=Level.HARDWARE,
    knowledge="A GPU whose memory has errors that ECC cannot correct gives wrong results or ends the program.",
    source="gpud: RAS counter deltas above zero; Meta: HBM3 was 72 and SRAM 19 of 419 interruptions",
    refuted_by="the counter was read before and after a driver reload",
    next_step="leave the node out and tell the operators: reset the GPU, replace it if it comes again",
    needs=("gpu.ecc_uncorrected",),
    judge=_ecc,
    explains=SLOWED | ENDS,
)


def _nvlink(case: Case) -> Iterator[Suspicion]:
    if case.has("gpu.nvlink_errors"):
        yield from _counter(case, "nvlink_errors", "NVLink errors", severity=Severity.WARNING, confidence=0.8, least=10)
    silent = "t.nvlink < 0.02 * p.nvlink AND p.nvlink > 1e9 AND t.engine > 0.2 AND p.gpus >= 4"
    for episode in case.episodes("g", silent, ["nvlink", "p_nvlink"]):
        value, expected = episode.means["nvlink"], episode.means["p_nvlink"]
        fact = case.evidence("NVLink traffic", episode, "nvlink_rx_bytes_per_s", value, expected=expected, unit="B/s")
        yield _of(episode, 0.7, "no NVLink traffic while the other GPUs have some", fact)


NVLINK = Rule(
    name="nvlink",
    title="NVLink of a GPU does not work as it should",
    level=Level.HARDWARE,
    knowledge="CRC errors and replays slow NVLink down; an inactive link moves its traffic to PCIe.",
    source="gpud: inactive links above zero, error counter deltas; NVIDIA, NVLink counters",
    refuted_by="the program does not communicate from that GPU (look at its rank)",
    next_step="leave the node out and tell the operators: nvidia-smi nvlink -e, fabric manager",
    needs=("gpu.nvlink_rx_bytes_per_s",),
    judge=_nvlink,
    explains=SLOWED | {"hang"},
)


def _thermal(case: Case) -> Iterator[Suspicion]:
    condition = "t.thermal >= 0.6"
    for episode in case.episodes("g", condition, ["thermal", "temperature", "p_temperature", "clock", "p_clock"]):
        means = episode.means
        facts = (
            case.evidence("share of time with a thermal slow-down", episode, "throttle_reasons", means["thermal"]),
            case.evidence(
                "temperature",
                episode,
                "temperature_c",
                means["temperature"],
                expected=means["p_temperature"],
                unit="°C",
            ),
            _clock(case, episode),
        )
        yield _of(episode, 0.95, f"slowed down by heat at {means['temperature'] or 0:.0f} °C", *facts)


THERMAL = Rule(
    name="thermal-throttle",
    title="GPU slowed down by heat",
    level=Level.HARDWARE,
    knowledge="A GPU that is too hot lowers its clocks; in synchronous training the whole job then waits for it.",
    source="gpud: hardware slow-down in 6 of 10 minutes; Omnistat; NVML clocks-event reasons 0x8, 0x20, 0x40",
    refuted_by="the other GPUs of the node have the same reasons at the same clocks: then it is the node's cooling",
    next_step="leave the node out of the next run and tell the operators: air flow, fans, dust, thermal paste",
    needs=("gpu.throttle_reasons",),
    judge=_thermal,
    explains=SLOWED | {"power-throttle"},
)


def _power(case: Case) -> Iterator[Suspicion]:
    condition = (
        "(t.braked >= 0.6 OR t.capped >= 0.6) AND t.thermal < 0.6 AND t.clock < 0.9 * p.clock AND t.engine > 0.2"
    )
    for episode in case.episodes("g", condition, ["braked", "capped", "power", "p_power", "clock", "p_clock"]):
        means = episode.means
        word = "an external power brake" if (means["braked"] or 0) >= 0.6 else "its power limit"
        power = case.evidence("power draw", episode, "power_w", means["power"], expected=means["p_power"], unit="W")
        yield _of(episode, 0.9, f"held back by {word}, below the clocks of the others", power, _clock(case, episode))


POWER = Rule(
    name="power-throttle",
    title="GPU held back by power",
    level=Level.HARDWARE,
    knowledge="At full load the power cap is normal; a GPU below its peers' clocks, or braked, is at fault.",
    source="NVML clocks-event reasons 0x4 and 0x80; Omnistat",
    refuted_by="the GPU does more work than the others (compare tensor activity)",
    next_step="tell the operators: power limit of that GPU (nvidia-smi -q -d POWER), power supply of the node",
    needs=("gpu.throttle_reasons", "gpu.sm_clock_hz"),
    judge=_power,
    explains=SLOWED,
)


def _slow(case: Case) -> Iterator[Suspicion]:
    condition = f"""t.clock < 0.92 * p.clock AND t.engine > {BUSY} AND p.engine > {BUSY}
        AND coalesce(greatest(t.thermal, t.capped, t.braked), 0) < 0.6 AND p.gpus >= 3"""
    for episode in case.episodes("g", condition, ["clock", "p_clock", "engine", "p_engine"]):
        share = (episode.means["clock"] or 0) / (episode.means["p_clock"] or 1)
        yield _of(episode, 0.85, f"runs at {share:.0%} of the others' clock while it has work", _clock(case, episode))


SLOW = Rule(
    name="slow-gpu",
    title="GPU slower than its peers (slow rank)",
    level=Level.HARDWARE,
    knowledge="In synchronous training the slow GPU is the busy one: the others wait for it inside their collectives.",
    source="Minder (distance to the same job's peers, persistent); NVIDIA resiliency extension (score below 0.75)",
    refuted_by="its rank has more work than the others (see imbalance), or another GPU in its place is as slow",
    next_step="run `piolet vet` on that node; leave it out of the next run and compare",
    needs=("gpu.sm_clock_hz", "gpu.gr_engine_active_ratio"),
    judge=_slow,
    explains=SLOWED - {"slow-gpu"},
)


def _idle(case: Case) -> Iterator[Suspicion]:
    rows = case.query(
        """
        SELECT node, gpu, max(engine), (SELECT median(engine) FROM g) AS peers FROM g
        GROUP BY ALL HAVING max(engine) < 0.05 AND (SELECT quantile_cont(engine, 0.75) FROM g) > 0.2 ORDER BY 1, 2
        """
    )
    for node, gpu, highest, peers in rows:
        fact = Evidence(
            "engine active, at most", highest, peers, family="gpu", column="gr_engine_active_ratio", node=node, gpu=gpu
        )
        span = case.interval
        reason = "never had work while the others had"
        yield Suspicion((node,), span.start_ns, span.end_ns, 0.8, reason, (fact,), gpu=gpu)


IDLE = Rule(
    name="idle-gpu",
    title="allocated GPU that is not used",
    level=Level.WORKLOAD,
    knowledge="Too few ranks, or ranks on the wrong GPU: low power, clock and temperature are the same fact.",
    source="common: CUDA_VISIBLE_DEVICES, local rank or tasks per node set wrongly",
    refuted_by="the program is meant to use fewer GPUs",
    next_step="check tasks per node, and that each rank selects the GPU of its local rank",
    needs=("gpu.gr_engine_active_ratio",),
    judge=_idle,
    explains=frozenset({"imbalance"}),
)


def _clock(case: Case, episode: Episode) -> Evidence:
    clock, expected = episode.means["clock"], episode.means["p_clock"]
    return case.evidence("SM clock", episode, "sm_clock_hz", clock, expected=expected, unit="Hz")


def _of(episode: Episode, confidence: float, reason: str, *facts: Evidence) -> Suspicion:
    nodes = (episode.node,)
    return Suspicion(nodes, episode.from_ns, episode.to_ns, confidence, reason, facts, gpu=episode.gpu)
