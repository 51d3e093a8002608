"""The pod of a service: Pod Security `restricted` by construction, placed where the site says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from piolet.service import quantities
from piolet.service.model import Health, Service
from piolet.service.platform import Platform
from piolet.service.render.names import Object, labels

CONFIG_VOLUME = "config"
SHARED_MEMORY = "shared-memory"


@dataclass(frozen=True, slots=True)
class Config:
    """The ConfigMap of a service: its name and, by path in the container, the keys it holds."""

    name: str
    keys: dict[str, str]


def template(service: Service, platform: Platform, config: Config | None, *, claims: bool, restart: str) -> Object:
    """Return the pod template; with `claims` it mounts the service's claims, which a StatefulSet makes itself."""
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _security(service),
        **_placement(service, platform),
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 60,
        "containers": [_container(service, platform, config)],
    }
    volumes = list(_volumes(service, config, claims=claims))
    return {"metadata": {"labels": labels(service)}, "spec": spec | ({"volumes": volumes} if volumes else {})}


def _security(service: Service) -> Object:
    """Numeric ids, as parallel file systems need them."""
    return {
        "runAsNonRoot": True,
        "runAsUser": service.user,
        "runAsGroup": service.group,
        "fsGroup": service.group,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _placement(service: Service, platform: Platform) -> Object:
    pool = platform.pool(service.run_on)
    if pool is None:
        return {}
    placed: Object = {"nodeSelector": dict(pool.labels)}
    if pool.taints:
        placed["tolerations"] = [
            {"key": taint.key, "operator": "Equal", "value": taint.value, "effect": taint.effect}
            for taint in pool.taints
        ]
    if service.most_replicas > 1:
        placed["topologySpreadConstraints"] = [_spread(service)]
    return placed


def _spread(service: Service) -> Object:
    """Replicas on different nodes where possible, so that a node that is drained takes one of them."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": service.name}},
    }


def _container(service: Service, platform: Platform, config: Config | None) -> Object:
    container: Object = {"name": service.name, "image": service.image, "imagePullPolicy": "IfNotPresent"}
    if service.command:
        container["command"] = list(service.command)
    if service.port:
        container["ports"] = [{"name": "http", "containerPort": service.port, "protocol": "TCP"}]
    environment = list(_environment(service))
    if environment:
        container["env"] = environment
    container["resources"] = _resources(service, platform)
    if service.health and service.port and not service.schedule:
        container |= _probes(service.health)
    container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    mounts = list(_mounts(service, config))
    return container | ({"volumeMounts": mounts} if mounts else {})


def _environment(service: Service) -> Iterator[Object]:
    """Values first, then references: a value may not be taken for a reference, so dollar signs are doubled.

    Without a PORT of its own the service gets the port that it is to listen on, as on Slurm, so that a command can say
    ``$(PORT)`` in both places.
    """
    if service.port and "PORT" not in {*service.env, *service.secrets}:
        yield {"name": "PORT", "value": str(service.port)}
    for name, value in service.env.items():
        yield {"name": name, "value": value.replace("$(", "$$(")}
    for name in service.secrets:
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": f"{service.name}-secrets", "key": name}}}


def _resources(service: Service, platform: Platform) -> Object:
    memory = quantities.memory(service.resources.memory)
    requests = {"cpu": quantities.processors(service.resources.cpus), "memory": memory}
    limits = {"memory": memory}
    pool = platform.pool(service.run_on)
    if service.resources.gpus and pool:
        limits[pool.gpu_resource] = str(service.resources.gpus)
        requests[pool.gpu_resource] = str(service.resources.gpus)
    return {"requests": requests, "limits": limits}


def _probes(health: Health) -> Object:
    """A start may take long; after it, three missed answers take a replica out and six restart it."""
    ask = {"httpGet": {"path": health.path, "port": "http"}, "periodSeconds": health.period_s, "timeoutSeconds": 5}
    tries = math.ceil(health.startup_s / health.period_s)
    return {
        "startupProbe": ask | {"failureThreshold": tries},
        "readinessProbe": ask | {"failureThreshold": 3},
        "livenessProbe": ask | {"failureThreshold": 6},
    }


def _mounts(service: Service, config: Config | None) -> Iterator[Object]:
    for name, volume in service.storage.items():
        mount = {"name": f"data-{name}", "mountPath": volume.path}
        yield mount | ({"readOnly": True} if volume.read_only else {})
    for path, key in (config.keys if config else {}).items():
        yield {"name": CONFIG_VOLUME, "mountPath": path, "subPath": key, "readOnly": True}
    if service.resources.gpus:
        yield {"name": SHARED_MEMORY, "mountPath": "/dev/shm"}  # noqa: S108 - where NCCL and data loaders share memory


def _volumes(service: Service, config: Config | None, *, claims: bool) -> Iterator[Object]:
    for name in service.storage if claims else ():
        yield {"name": f"data-{name}", "persistentVolumeClaim": {"claimName": f"{service.name}-{name}"}}
    if config:
        yield {"name": CONFIG_VOLUME, "configMap": {"name": config.name}}
    if service.resources.gpus:
        limit = f"{max(64, quantities.mebibytes(service.resources.memory) // 2)}Mi"
        yield {"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory", "sizeLimit": limit}}
