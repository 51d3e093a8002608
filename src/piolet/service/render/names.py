"""The labels, names and metadata that all objects of a service share."""

from __future__ import annotations

from typing import Any

from piolet.service.model import Service
from piolet.service.platform import Platform

Object = dict[str, Any]

PROJECT = "piolet/project"
RUN_ON = "piolet/run-on"
EXPOSE = "piolet/expose"
EXPIRES = "piolet/expires"
AUTH = "piolet/auth"
NAME = "app.kubernetes.io/name"
MANAGED_BY = "app.kubernetes.io/managed-by"


def selector(service: Service) -> dict[str, str]:
    """Return the labels that tell the service's pods from all others in the namespace."""
    return {NAME: service.name}


def labels(service: Service) -> dict[str, str]:
    """Return the labels of every object of the service."""
    return selector(service) | {
        MANAGED_BY: "piolet",
        PROJECT: service.project,
        RUN_ON: service.run_on.value,
        EXPOSE: service.expose.value,
    }


def metadata(service: Service, platform: Platform, suffix: str = "", **annotations: str) -> Object:
    """Return the metadata of an object of the service; its name is the service's with `suffix`."""
    found: Object = {
        "name": service.name + suffix,
        "namespace": platform.namespace(service.project),
        "labels": labels(service),
    }
    return found | ({"annotations": annotations} if annotations else {})


def lease(service: Service) -> dict[str, str]:
    """Return the annotations that say until when the service may run and who logs in."""
    expires = {EXPIRES: service.expires.isoformat()} if service.expires else {}
    return expires | {AUTH: service.auth.value}


def host(service: Service, platform: Platform) -> str:
    """Return the name under which people reach the service."""
    return service.host or f"{service.name}.{platform.project_domain(service.project)}"
