"""Grafana dashboards over what `piolet watch export` serves, generated as JSON: of a job, of a node, of the fleet.

A panel is a title and its queries by legend; the unit comes from the name of the metric, as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from piolet.logbook.units import unit

SCHEMA_VERSION = 39
"""Of Grafana 11's dashboards; later versions upgrade them on import."""

COLUMNS, HEIGHT = 24, 8
ACROSS = 2

METRIC = re.compile(r"\bpiolet_\w+")
_UNITS = {
    "B/s": "Bps",
    "B": "bytes",
    "1": "percentunit",
    "Hz": "hertz",
    "s": "s",
    "W": "watt",
    "J": "joule",
    "°C": "celsius",
    "1/s": "ops",
}
COUNT = "short"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: PromQL by legend. `unit` is Grafana's, empty for that of the first query's metric."""

    title: str
    queries: Mapping[str, str]
    unit: str = ""

    @property
    def shown_unit(self) -> str:
        """Return the unit of the plot, in Grafana's words."""
        first = next(iter(self.queries.values()))
        return self.unit or _UNITS.get(unit(METRIC.findall(first)[0]), COUNT)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of panels. `variable` is the label that its user chooses a value of, among those of `series`."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    variable: str = ""
    series: str = ""


def _of_gpus(metric: str) -> str:
    """Return the query of a GPU metric of the chosen job; a GPU has one job at a time."""
    whose = 'max by (node, gpu, uuid) (piolet_job_gpu_info{slurm_job="$slurm_job"})'
    return f"{metric} * on (node, gpu, uuid) group_left () {whose}"


def _of_nodes(metric: str) -> str:
    """Return the query of a metric of the chosen job's nodes."""
    return f'{metric} * on (node) group_left () max by (node) (piolet_job_info{{slurm_job="$slurm_job"}})'


def _spread(metric: str) -> dict[str, str]:
    """Return the lowest, mean and highest of a job's GPUs: a straggler shows, however many there are."""
    return {word: f"{word}({_of_gpus(metric)})" for word in ("min", "avg", "max")}


def _here(metric: str) -> str:
    return f'{metric}{{node="$node"}}'


def _by_job(metric: str) -> str:
    """Return the query of a GPU metric with the job beside it."""
    whose = "max by (node, gpu, uuid, slurm_job) (piolet_job_gpu_info)"
    return f"{metric} * on (node, gpu, uuid) group_left (slurm_job) {whose}"


JOB = Dashboard(
    "job",
    "Piolet: job",
    (
        Panel("SM active", _spread("piolet_gpu_sm_active_ratio")),
        Panel("GPUs that do least", {"{{node}}:{{gpu}}": f"bottomk(8, {_of_gpus('piolet_gpu_sm_active_ratio')})"}),
        Panel("Tensor pipes active", _spread("piolet_gpu_tensor_active_ratio")),
        Panel("Device memory bandwidth in use", _spread("piolet_gpu_dram_active_ratio")),
        Panel("Power of all GPUs", {"power": f"sum({_of_gpus('piolet_gpu_power_w')})"}),
        Panel("SM clock", _spread("piolet_gpu_sm_clock_hz")),
        Panel("GPU temperature", _spread("piolet_gpu_temperature_c")),
        Panel("Device memory in use", _spread("piolet_gpu_memory_used_bytes")),
        Panel(
            "NVLink of all GPUs",
            {
                "received": f"sum({_of_gpus('piolet_gpu_nvlink_rx_bytes_per_s')})",
                "sent": f"sum({_of_gpus('piolet_gpu_nvlink_tx_bytes_per_s')})",
            },
        ),
        Panel(
            "CPUs",
            {
                "busy": f"avg({_of_nodes('piolet_host_cpu_busy_ratio')})",
                "waiting for I/O": f"avg({_of_nodes('piolet_host_cpu_iowait_ratio')})",
            },
        ),
        Panel("Host memory, fullest nodes", {"{{node}}": f"topk(8, {_of_nodes('piolet_host_memory_used_bytes')})"}),
        Panel(
            "Network of all nodes",
            {
                "received": f"sum({_of_nodes('piolet_host_net_rx_bytes_per_s')})",
                "sent": f"sum({_of_nodes('piolet_host_net_tx_bytes_per_s')})",
            },
        ),
        Panel("What the program reports", {"{{name}}": f"avg by (name) ({_of_nodes('piolet_user_value')})"}),
    ),
    "slurm_job",
    "piolet_job_info",
)

NODE = Dashboard(
    "node",
    "Piolet: node",
    (
        Panel("SM active", {"{{gpu}}": _here("piolet_gpu_sm_active_ratio")}),
        Panel("Power", {"{{gpu}}": _here("piolet_gpu_power_w")}),
        Panel("SM clock", {"{{gpu}}": _here("piolet_gpu_sm_clock_hz")}),
        Panel("GPU temperature", {"{{gpu}}": _here("piolet_gpu_temperature_c")}),
        Panel("Device memory in use", {"{{gpu}}": _here("piolet_gpu_memory_used_bytes")}),
        Panel(
            "Uncorrected memory errors in an hour",
            {"{{gpu}}": f"increase({_here('piolet_gpu_ecc_uncorrected')}[1h])"},
        ),
        Panel(
            "CPUs",
            {
                "busy": _here("piolet_host_cpu_busy_ratio"),
                "waiting for I/O": _here("piolet_host_cpu_iowait_ratio"),
            },
        ),
        Panel(
            "Tasks that wait",
            {
                "for a CPU": _here("piolet_host_cpu_pressure_ratio"),
                "for memory": _here("piolet_host_memory_pressure_ratio"),
                "for I/O": _here("piolet_host_io_pressure_ratio"),
            },
        ),
        Panel(
            "Host memory",
            {"in use": _here("piolet_host_memory_used_bytes"), "in all": _here("piolet_host_memory_total_bytes")},
        ),
        Panel(
            "Network",
            {
                "{{nic}} received": _here("piolet_nic_rx_bytes_per_s"),
                "{{nic}} sent": _here("piolet_nic_tx_bytes_per_s"),
            },
        ),
        Panel(
            "File systems",
            {
                "{{fs}} read": _here("piolet_fs_read_bytes_per_s"),
                "{{fs}} written": _here("piolet_fs_write_bytes_per_s"),
            },
        ),
        Panel("Power by domain", {"{{domain}}": _here("piolet_energy_power_w")}),
    ),
    "node",
    "piolet_job_info",
)

FLEET = Dashboard(
    "fleet",
    "Piolet: fleet",
    (
        Panel("Jobs", {"jobs": "count(group by (slurm_job, cluster) (piolet_job_info))"}, COUNT),
        Panel(
            "GPUs",
            {
                "with a job": "count(piolet_gpu_power_w)",
                "below 5 % SM activity": "count(piolet_gpu_sm_active_ratio < 0.05) or vector(0)",
            },
            COUNT,
        ),
        Panel("SM active, all GPUs", {"mean": "avg(piolet_gpu_sm_active_ratio)"}),
        Panel("Power of all GPUs", {"power": "sum(piolet_gpu_power_w)"}),
        Panel(
            "Jobs that use most power",
            {"{{slurm_job}}": f"topk(10, sum by (slurm_job) ({_by_job('piolet_gpu_power_w')}))"},
        ),
        Panel(
            "Jobs whose GPUs do least",
            {"{{slurm_job}}": f"bottomk(10, avg by (slurm_job) ({_by_job('piolet_gpu_sm_active_ratio')}))"},
        ),
        Panel("Hottest GPUs", {"{{node}}:{{gpu}}": "topk(10, piolet_gpu_temperature_c)"}),
        Panel(
            "GPUs with new uncorrected memory errors, in an hour",
            {"{{node}}:{{gpu}}": "topk(10, increase(piolet_gpu_ecc_uncorrected[1h]) > 0)"},
        ),
        Panel("Nodes that wait most for I/O", {"{{node}}": "topk(10, piolet_host_cpu_iowait_ratio)"}),
        Panel("Clocks that are farthest off", {"{{node}}": "topk(10, abs(piolet_clock_offset_s))"}),
    ),
)

DASHBOARDS = (JOB, NODE, FLEET)


def document(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    return {
        "uid": f"piolet-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["piolet"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables(dashboard)},
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    if not dashboard.variable:
        return [source]
    query = f"label_values({dashboard.series}, {dashboard.variable})"
    chosen = {
        "name": dashboard.variable,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": dashboard.variable},
        "refresh": 2,
        "sort": 4,
    }
    return [source, chosen]


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    width = COLUMNS // ACROSS
    targets = [
        {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
        for place, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": number % ACROSS * width, "y": number // ACROSS * HEIGHT, "w": width, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.shown_unit}, "overrides": []},
        "options": {"tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": targets,
    }
