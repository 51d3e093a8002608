"""What a service takes in a month, read from its manifests or its jobs: what it reserves, used or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from piolet.service import quantities
from piolet.service.model import Service
from piolet.tools.slurm.times import parse_duration_s

HOURS = 730
"""Hours of a month: 8760 of a year by 12."""

NOT_GPUS = {"cpu", "memory", "ephemeral-storage"}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one month, at least and at most: hours of GPUs, of processors and of whole nodes; GiB of volumes."""

    gpu_hours: tuple[float, float]
    cpu_hours: tuple[float, float] = (0, 0)
    storage_gib: float = 0
    node_hours: tuple[float, float] = (0, 0)


def monthly_on_slurm(service: Service) -> Cost:
    """Return what the jobs of a service hold: whole nodes, and with each hand-over its overlap twice, at most."""
    limit_s, overlap_s = parse_duration_s(service.slurm.time_limit) or 0, service.slurm.overlap_minutes * 60
    nodes, spares = service.most_replicas * service.slurm.nodes * HOURS, service.most_replicas * service.slurm.spares
    most = (nodes + spares * HOURS) * limit_s / (limit_s - overlap_s)
    gpus = service.resources.gpus
    return Cost(gpu_hours=(nodes * gpus, most * gpus), node_hours=(nodes, most))


def monthly(objects: Iterable[dict[str, Any]]) -> Cost:
    """Return what the objects of one service reserve: requests x replicas x HOURS, and all claims.

    A CronJob runs at most one pod at a time (`concurrencyPolicy: Forbid`), so it takes between none and one all along.
    Each replica of a StatefulSet has claims of its own.
    """
    kinds: dict[str, list[dict[str, Any]]] = {}
    for each in objects:
        kinds.setdefault(each["kind"], []).append(each.get("spec", {}))
    workload = next(spec for kind in ("Deployment", "StatefulSet", "CronJob") for spec in kinds.get(kind, []))
    least, most = _replicas(workload, kinds.get("HorizontalPodAutoscaler", []))
    cpus, gpus = _requests(workload)
    own = sum(map(_claimed_gib, (each["spec"] for each in workload.get("volumeClaimTemplates", []))))
    shared = sum(map(_claimed_gib, kinds.get("PersistentVolumeClaim", [])))
    return Cost(
        (gpus * least * HOURS, gpus * most * HOURS), (cpus * least * HOURS, cpus * most * HOURS), own * most + shared
    )


def _replicas(workload: dict[str, Any], scalers: list[dict[str, Any]]) -> tuple[int, int]:
    if "jobTemplate" in workload:
        return 0, 1
    if scalers:
        return scalers[0]["minReplicas"], scalers[0]["maxReplicas"]
    return workload["replicas"], workload["replicas"]


def _requests(workload: dict[str, Any]) -> tuple[float, float]:
    """Return the processors and the GPUs that one pod asks for."""
    template = workload["jobTemplate"]["spec"]["template"] if "jobTemplate" in workload else workload["template"]
    requests = [container["resources"]["requests"] for container in template["spec"]["containers"]]
    cpus = sum(quantities.amount(each["cpu"]) for each in requests)
    gpus = sum(quantities.amount(value) for each in requests for name, value in each.items() if name not in NOT_GPUS)
    return cpus, gpus


def _claimed_gib(claim: dict[str, Any]) -> float:
    return quantities.gibibytes(claim["resources"]["requests"]["storage"] + "B")
