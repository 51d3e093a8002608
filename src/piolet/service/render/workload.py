"""What keeps the pods of a service running: a Deployment, a StatefulSet or a CronJob, and what belongs to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from piolet.service import quantities
from piolet.service.model import Scale, Service, Volume
from piolet.service.platform import Platform
from piolet.service.render.names import Object, lease, metadata, selector
from piolet.service.render.pod import Config, template


def config_of(service: Service, contents: dict[str, str]) -> Config | None:
    """Return the ConfigMap of the files; its name changes with their content, so that pods start anew with it."""
    if not contents:
        return None
    digest = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:10]
    return Config(f"{service.name}-config-{digest}", {path: f"file-{i}" for i, path in enumerate(contents)})


def objects(service: Service, platform: Platform, contents: dict[str, str]) -> Iterator[Object]:
    """Yield the workload with its configuration, volumes, budget and scaling."""
    config = config_of(service, contents)
    if config:
        yield _config_map(service, platform, config, contents)
    sets = _is_stateful(service, platform)
    if not sets:
        for name, volume in service.storage.items():
            meta = metadata(service, platform, f"-{name}")
            yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta} | _claim(volume, platform)
    if service.schedule:
        yield _cron_job(service, platform, config)
        return
    yield _running(service, platform, config, sets=sets)
    if service.most_replicas > 1:
        yield _disruption_budget(service, platform)
    if isinstance(service.replicas, Scale):
        yield _autoscaler(service, platform, service.replicas, "StatefulSet" if sets else "Deployment")


def _is_stateful(service: Service, platform: Platform) -> bool:
    """Tell whether each replica needs volumes of its own, since one node only may mount them."""
    kinds = [platform.storage.get(volume.kind) for volume in service.storage.values()]
    return not service.schedule and any(kind is not None and kind.mode == "ReadWriteOnce" for kind in kinds)


def _running(service: Service, platform: Platform, config: Config | None, *, sets: bool) -> Object:
    spec: Object = {
        **({} if isinstance(service.replicas, Scale) else {"replicas": service.replicas}),
        "selector": {"matchLabels": selector(service)},
        "template": template(service, platform, config, claims=not sets, restart="Always"),
    }
    kind = "StatefulSet" if sets else "Deployment"
    if sets:
        spec = {"serviceName": service.name} | spec | {"volumeClaimTemplates": _claim_templates(service, platform)}
    elif not all(volume.read_only for volume in service.storage.values()):
        spec["strategy"] = {"type": "Recreate"}  # two generations never write to one volume
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": _leased(service, platform), "spec": spec}


def _leased(service: Service, platform: Platform) -> Object:
    return metadata(service, platform, **lease(service))


def _cron_job(service: Service, platform: Platform, config: Config | None) -> Object:
    pod = template(service, platform, config, claims=True, restart="Never")
    spec = {
        "schedule": service.schedule,
        "concurrencyPolicy": "Forbid",
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"spec": {"backoffLimit": 2, "template": pod}},
    }
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": _leased(service, platform), "spec": spec}


def _claim(volume: Volume, platform: Platform) -> Object:
    kind = platform.storage.get(volume.kind)
    return {
        "spec": {
            "accessModes": [kind.mode if kind else "ReadWriteMany"],
            "storageClassName": kind.storage_class if kind else volume.kind,
            "resources": {"requests": {"storage": quantities.memory(volume.size)}},
        }
    }


def _claim_templates(service: Service, platform: Platform) -> list[Object]:
    return [
        {"metadata": {"name": f"data-{name}"}} | _claim(volume, platform) for name, volume in service.storage.items()
    ]


def _config_map(service: Service, platform: Platform, config: Config, contents: dict[str, str]) -> Object:
    meta = metadata(service, platform) | {"name": config.name}
    data = {config.keys[path]: text for path, text in contents.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def _disruption_budget(service: Service, platform: Platform) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(service, platform),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(service)}},
    }


def _autoscaler(service: Service, platform: Platform, scale: Scale, kind: str) -> Object:
    target = {"type": "Utilization", "averageUtilization": scale.cpu_percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(service, platform),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": service.name},
            "minReplicas": scale.min,
            "maxReplicas": scale.max,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }
