"""Rules about nodes and what they share: network links, file systems, memory, processors, other jobs."""

from __future__ import annotations

from collections.abc import Iterator

from piolet.core.nouns import Severity
from piolet.core.text import plural
from piolet.logbook.records import Evidence
from piolet.watch.diagnosis.case import Case
from piolet.watch.diagnosis.rule import Level, Rule, Suspicion
from piolet.watch.series import SECOND_NS

FLAPS = 3
"""Recoveries of a link that count as flapping (gpud: three in 12 h)."""

OUTAGE_S = 30.0
WHOLE_JOB = 0.5
"""A condition on more than this share of the nodes is the job's or a shared system's, not a node's."""


def _link(case: Case) -> Iterator[Suspicion]:
    rows = case.query(
        """
        WITH each AS (
            SELECT node, nic, time_ns, up, link_downs - lag(link_downs) OVER link AS downs,
                lead(time_ns) OVER link - time_ns AS step
            FROM nic WINDOW link AS (PARTITION BY node, nic ORDER BY time_ns)
        )
        SELECT node, nic, coalesce(sum(downs) FILTER (downs > 0), 0), coalesce(sum(step) FILTER (NOT up), 0),
            min(time_ns) FILTER (downs > 0 OR NOT up), max(time_ns) FILTER (downs > 0 OR NOT up)
        FROM each GROUP BY ALL HAVING count(*) FILTER (up) > 0 ORDER BY 1, 2
        """
    )
    for node, nic, downs, down_ns, first, last in rows:
        if downs < FLAPS and down_ns < OUTAGE_S * SECOND_NS:
            continue
        fact = Evidence(
            "times the link went down",
            int(downs),
            0,
            family="nic",
            column="link_downs",
            node=node,
            from_ns=first,
            to_ns=last,
        )
        reason = f"link {nic} went down {plural(int(downs), 'time')}, for {down_ns / SECOND_NS:.0f} s in all"
        yield Suspicion((node,), first, last, 0.9, reason, (fact,), severity=Severity.ERROR)


LINK = Rule(
    name="link-flap",
    title="network link that goes down and up",
    level=Level.HARDWARE,
    knowledge="A link that flaps makes collectives hang or time out on all nodes at once.",
    source="gpud: three recoveries in 12 h; Azure: one outage of 4 min; Meta: network was 35 of 419 interruptions",
    refuted_by="the links of all nodes went down at once: then it is a switch",
    next_step="leave the node out and tell the operators: cable, transceiver, switch port",
    needs=("nic.link_downs",),
    judge=_link,
    explains=frozenset({"hang", "slower-than-before", "slower-than-past", "first-failure", "io-stall"}),
)


def _stall(case: Case) -> Iterator[Suspicion]:
    condition = "greatest(coalesce(t.io_pressure, 0), coalesce(t.iowait, 0)) > 0.25"
    episodes = [
        each
        for each in case.episodes("h", condition, ["io_pressure", "iowait"], bins=2)
        if each.to_ns > case.time_ns(case.steady_bin)
    ]
    if not episodes:
        return
    nodes = tuple(sorted({each.node for each in episodes}))
    first, last = min(each.from_ns for each in episodes), max(each.to_ns for each in episodes)
    lost = _activity_lost(case, first, last)
    if lost is None or lost < 0.25:
        return
    worst = max(episodes, key=lambda each: each.means["io_pressure"] or 0)
    value = max(worst.means["io_pressure"] or 0, worst.means["iowait"] or 0)
    total = case.query("SELECT count(DISTINCT node) FROM h")[0][0]
    shared = len(nodes) > WHOLE_JOB * total
    where = (
        "every node waits: the shared file system"
        if shared and total > 1
        else f"{plural(len(nodes), 'node')} of {total} wait"
    )
    fact = case.evidence("share of time in which tasks wait for I/O", worst, "io_pressure_ratio", value)
    drop = Evidence(
        "activity lost against the rest of the run",
        lost,
        family="gpu",
        column="sm_active_ratio",
        from_ns=first,
        to_ns=last,
    )
    confidence = 0.85 if shared else 0.75
    yield Suspicion(
        () if shared else nodes, first, last, confidence, f"{where}; GPUs do {lost:.0%} less meanwhile", (fact, drop)
    )


def _activity_lost(case: Case, first_ns: int, last_ns: int) -> float | None:
    """Return by which share the peers' SM activity in an interval is below that of the rest of the steady state."""
    inside, outside = case.query(
        """
        SELECT avg(sm) FILTER (bin >= $first AND bin < $last), median(sm) FILTER (bin < $first OR bin >= $last)
        FROM peers WHERE bin >= $steady
        """,
        first=(first_ns - case.interval.start_ns) // case.width_ns,
        last=-(-(last_ns - case.interval.start_ns) // case.width_ns),
        steady=case.steady_bin,
    )[0]
    return 1 - inside / outside if inside is not None and outside else None


STALL = Rule(
    name="io-stall",
    title="the job waits for a file system",
    level=Level.SYSTEM,
    knowledge="All nodes waiting for I/O at once is the shared file system; one node alone is its disk or client.",
    source="site reports: a wide p10-p90 of the step time is the sign of I/O stalls; PSI io (Linux); gpud",
    refuted_by="the program was writing a checkpoint then, or the GPUs were as active as before",
    next_step="compare with the file system's status page; read from node-local copies, fewer and larger files",
    needs=("host.io_pressure_ratio", "gpu.sm_active_ratio"),
    judge=_stall,
    explains=frozenset({"slower-than-before", "slower-than-past", "input-starvation", "hang"}),
)


def _leak(case: Case) -> Iterator[Suspicion]:
    rows = case.query(
        """
        SELECT node, regr_slope(memory, bin), regr_r2(memory, bin), count(*), max(memory), max(memory_total),
            arg_max(memory, bin) - arg_min(memory, bin), max(bin) + 1
        FROM h WHERE bin >= $steady GROUP BY node HAVING count(*) >= 12 ORDER BY node
        """,
        steady=case.steady_bin,
    )
    growing = [row for row in rows if row[1] and row[1] > 0 and row[2] > 0.95 and row[5] and row[6] > 0.05 * row[5]]
    if not growing:
        return
    node, slope, certainty, _, highest, total, grown, last = max(growing, key=lambda row: row[1])
    per_s = slope / (case.width_ns / SECOND_NS)
    left_s = max(0.0, (total - highest) / per_s)
    everywhere = len(growing) > WHOLE_JOB * len(rows)
    nodes = () if everywhere else tuple(row[0] for row in growing)
    facts = (
        Evidence(
            "memory gained",
            grown,
            unit="B",
            family="host",
            column="memory_used_bytes",
            node=node,
            from_ns=case.time_ns(case.steady_bin),
            to_ns=case.time_ns(last),
        ),
        Evidence("fit of a straight line (r²)", certainty, 0.95),
    )
    pace = f"memory grows by {per_s * 3600 / 2**30:.1f} GiB an hour on {plural(len(growing), 'node')}"
    reason = f"{pace}; full in {left_s / 60:.0f} min"
    severity = Severity.ERROR if left_s < 3600 else Severity.WARNING
    yield Suspicion(nodes, case.time_ns(case.steady_bin), case.time_ns(last), 0.85, reason, facts, severity=severity)


LEAK = Rule(
    name="memory-leak",
    title="host memory grows steadily",
    level=Level.WORKLOAD,
    knowledge="A straight line upwards after the start-up is a leak: kept batches, a growing list, pinned buffers.",
    source="ClusterCockpit defines it: slope with a confidence interval above zero",
    refuted_by="it is page cache, or a cache that has a limit and flattens out",
    next_step="log object counts over steps; look at data-loader workers and at tensors kept in lists",
    needs=("host.memory_used_bytes",),
    judge=_leak,
    explains=frozenset({"oom-risk", "first-failure"}),
)


def _oom(case: Case) -> Iterator[Suspicion]:
    rows = case.query(
        """
        SELECT node, min(bin), max(bin) + 1, max(memory / memory_total) FROM h
        WHERE memory > 0.95 * memory_total GROUP BY node HAVING count(*) >= 2 ORDER BY node
        """
    )
    for node, first, last, share in rows:
        span = case.time_ns(first), case.time_ns(last)
        fact = Evidence(
            "memory in use",
            share,
            0.95,
            family="host",
            column="memory_used_bytes",
            node=node,
            from_ns=span[0],
            to_ns=span[1],
        )
        yield Suspicion((node,), *span, 0.7, f"{share:.0%} of the node's memory is in use", (fact,))


OOM = Rule(
    name="oom-risk",
    title="host memory nearly full",
    level=Level.WORKLOAD,
    knowledge="Above 95 % the kernel reclaims, then kills; what it kills is seldom what leaks.",
    source="Linux: memory reclaim and the OOM killer",
    refuted_by="most of it is shared memory or page cache that can be freed",
    next_step="use fewer or smaller data-loader workers, or ask for more memory",
    needs=("host.memory_used_bytes", "host.memory_total_bytes"),
    judge=_oom,
    explains=frozenset({"first-failure"}),
)


def _neighbour(case: Case) -> Iterator[Suspicion]:
    condition = """t.cpu > p.cpu + 0.3 AND t.cpu > 0.75 AND p.nodes >= 3
        AND coalesce(t.cpu_pressure, 0) > coalesce(p.cpu_pressure, 0) + 0.1"""
    for episode in case.episodes("h", condition, ["cpu", "p_cpu", "cpu_pressure", "p_cpu_pressure"]):
        means = episode.means
        facts = (
            case.evidence("CPU busy", episode, "cpu_busy_ratio", means["cpu"], expected=means["p_cpu"]),
            case.evidence(
                "tasks wait for a CPU",
                episode,
                "cpu_pressure_ratio",
                means["cpu_pressure"],
                expected=means["p_cpu_pressure"],
            ),
        )
        own = _own_cores(case, episode.node)
        theirs = own is not None and own <= 1.2 * (_own_cores(case) or own)
        reason = (
            "other processes keep this node's CPUs busy"
            if theirs
            else "this node's CPUs are far busier than the others'"
        )
        yield Suspicion((episode.node,), episode.from_ns, episode.to_ns, 0.85 if theirs else 0.6, reason, facts)


def _own_cores(case: Case, node: str = "") -> float | None:
    found: float | None = case.query("SELECT median(cpu_cores) FROM cgroup WHERE $node IN ('', node)", node=node)[0][0]
    return found


NEIGHBOUR = Rule(
    name="noisy-neighbour",
    title="something else uses the node",
    level=Level.SYSTEM,
    knowledge="A node busier than its peers, while the job's own part is not, has a neighbour or a daemon gone wild.",
    source="PSI cpu (Linux); Minder: CPU metrics second in the order of diagnosis",
    refuted_by="the job's own ranks on that node do more than the others (`proc`, `cgroup`)",
    next_step="ask for whole nodes (--exclusive); tell the operators which node and when",
    needs=("host.cpu_busy_ratio", "host.cpu_pressure_ratio"),
    judge=_neighbour,
    explains=frozenset({"slower-than-before", "slower-than-past", "imbalance", "input-starvation"}),
)


def _affinity(case: Case) -> Iterator[Suspicion]:
    rows = case.query(
        """
        SELECT c.node, avg(c.cpu_cores), max(c.cpu_limit_cores), avg(c.cpu_pressure_ratio), avg(h.cpu_busy_ratio)
        FROM cgroup c JOIN host h ON c.node = h.node AND c.time_ns // 1000000000 = h.time_ns // 1000000000
        WHERE c.time_ns >= $start AND c.time_ns < $end GROUP BY ALL
        HAVING avg(c.cpu_cores) > 0.85 * max(c.cpu_limit_cores) AND avg(h.cpu_busy_ratio) < 0.5
            AND coalesce(avg(c.cpu_pressure_ratio), 1) > 0.2 ORDER BY 1
        """,
        start=case.time_ns(case.steady_bin),
        end=case.interval.end_ns,
    )
    if not rows:
        return
    node, cores, limit, _, busy = rows[0]
    facts = (
        Evidence("CPUs used of those the job may use", cores, limit, "cores", "cgroup", "cpu_cores", node),
        Evidence("CPU busy on the whole node", busy, family="host", column="cpu_busy_ratio", node=node),
    )
    total = case.query("SELECT count(DISTINCT node) FROM h")[0][0]
    nodes = () if len(rows) > WHOLE_JOB * total else tuple(row[0] for row in rows)
    reason = f"the job may use {limit:.0f} CPUs of a node that is {1 - busy:.0%} idle, and its tasks wait for them"
    yield Suspicion(nodes, case.time_ns(case.steady_bin), case.interval.end_ns, 0.8, reason, facts)


AFFINITY = Rule(
    name="wrong-affinity",
    title="ranks crowd on too few CPUs",
    level=Level.WORKLOAD,
    knowledge="Ranks bound to the same CPUs, or a step with one CPU a task, wait for each other on an idle node.",
    source="Slurm: --cpus-per-task is not inherited by srun since 22.05; PSI cpu of the cgroup",
    refuted_by="the tasks have few threads and the GPUs are saturated",
    next_step="give the step its CPUs (--cpus-per-task, or SRUN_CPUS_PER_TASK) and look at --cpu-bind=verbose",
    needs=("cgroup.cpu_cores", "cgroup.cpu_limit_cores", "host.cpu_busy_ratio"),
    judge=_affinity,
    explains=frozenset({"launch-bound", "input-starvation"}),
)


def _tcp(case: Case) -> Iterator[Suspicion]:
    for match in case.logs:
        if match.pattern.name == "nccl-tcp":
            fact = Evidence(match.text[:200], f"{match.path.name}:{match.line}")
            yield Suspicion(
                (),
                case.interval.start_ns,
                case.interval.end_ns,
                0.95,
                "NCCL says that it uses sockets",
                (fact,),
                rank=match.rank,
            )
            return
    if not case.has("nic.kind"):
        return
    fast, kernel = case.query(
        """
        SELECT (SELECT avg(rx_bytes_per_s + tx_bytes_per_s) FROM nic WHERE kind IN ('infiniband', 'cxi')),
            (SELECT avg(net_rx + net_tx) FROM h WHERE bin >= $steady)
        """,
        steady=case.steady_bin,
    )[0]
    nodes = sum(held.used for held in case.job.allocation)
    if fast is not None and kernel is not None and nodes > 1 and kernel > 100e6 and fast < 0.1 * kernel:
        facts = (
            Evidence(
                "traffic through the kernel's network", kernel, unit="B/s", family="host", column="net_rx_bytes_per_s"
            ),
            Evidence("traffic of the fast network", fast, unit="B/s", family="nic", column="rx_bytes_per_s"),
        )
        reason = "the traffic between nodes goes through the kernel, not through the fast network"
        yield Suspicion((), case.time_ns(case.steady_bin), case.interval.end_ns, 0.8, reason, facts)


TCP = Rule(
    name="nccl-on-tcp",
    title="NCCL uses TCP: the network plugin is not in use",
    level=Level.WORKLOAD,
    knowledge="Without the network's plugin (aws-ofi-nccl, the InfiniBand transport) NCCL falls back to sockets.",
    source="NCCL: NCCL_DEBUG=INFO prints NET/Socket; the fast network's own counters stay low",
    refuted_by="NCCL_DEBUG=INFO names the plugin, as in NET/OFI or NET/IB",
    next_step="enable the hook in the environment ([annotations.com.hooks.aws_ofi_nccl]) and set NCCL_DEBUG=INFO",
    needs=("nic.rx_bytes_per_s",),
    judge=_tcp,
    explains=frozenset({"launch-bound"}),
)
