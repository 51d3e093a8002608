"""How a service is reached, and by nobody else: Service, Ingress or HTTPRoute, NetworkPolicy, ServiceMonitor."""

from __future__ import annotations

from collections.abc import Iterator

from piolet.service.model import Auth, RunOn, Service
from piolet.service.platform import Exposure, Platform
from piolet.service.render.names import Object, host, metadata, selector

NAMESPACE = "kubernetes.io/metadata.name"


def objects(service: Service, platform: Platform) -> Iterator[Object]:
    """Yield what connects the service; one without a port is connected to nothing."""
    yield _network_policy(service, platform)
    if service.port is None:
        return
    yield _service(service, platform)
    way_in = platform.way_in(service.expose)
    if way_in and service.run_on is RunOn.COMMODITY:  # GPU nodes are reached through the gateway alone
        yield (_ingress if way_in.kind == "ingress" else _route)(service, platform, way_in)
    if service.metrics:
        yield _monitor(service, platform)


def _service(service: Service, platform: Platform) -> Object:
    port = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(service, platform),
        "spec": {"type": "ClusterIP", "selector": selector(service), "ports": [port]},
    }


def _network_policy(service: Service, platform: Platform) -> Object:
    sources = list(_sources(service, platform))
    ingress = [{"from": sources, "ports": [{"port": service.port, "protocol": "TCP"}]}] if sources else []
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(service, platform),
        "spec": {"podSelector": {"matchLabels": selector(service)}, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def _sources(service: Service, platform: Platform) -> Iterator[Object]:
    """Yield who may connect: on GPU nodes the gateway alone, else the project and the way in of its circle."""
    if service.port is None:
        return
    if service.run_on is RunOn.GPU:
        yield _namespace(platform.gateway_namespace)
    else:
        yield {"podSelector": {}}
        way_in = platform.way_in(service.expose)
        if way_in:
            yield _namespace(way_in.namespace)
    if service.metrics:
        yield _namespace(platform.monitoring_namespace)


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE: name}}}


def _annotations(service: Service, platform: Platform, way_in: Exposure) -> dict[str, str]:
    found = {"external-dns.alpha.kubernetes.io/hostname": host(service, platform)} | way_in.annotations
    if way_in.kind == "ingress":
        found["cert-manager.io/cluster-issuer"] = way_in.issuer
    return found | (way_in.oidc_annotations if service.auth is Auth.OIDC else {})


def _ingress(service: Service, platform: Platform, way_in: Exposure) -> Object:
    name = host(service, platform)
    backend = {"service": {"name": service.name, "port": {"name": "http"}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(service, platform, **_annotations(service, platform, way_in)),
        "spec": {
            "ingressClassName": way_in.class_name,
            "tls": [{"hosts": [name], "secretName": f"{service.name}-tls"}],
            "rules": [{"host": name, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
        },
    }


def _route(service: Service, platform: Platform, way_in: Exposure) -> Object:
    """Gateway API: the gateway, which is the operators', ends TLS on its section for HTTPS."""
    gateway = {"name": way_in.class_name, "namespace": way_in.namespace, "sectionName": "https"}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(service, platform, **_annotations(service, platform, way_in)),
        "spec": {
            "parentRefs": [gateway],
            "hostnames": [host(service, platform)],
            "rules": [{"backendRefs": [{"name": service.name, "port": 80}]}],
        },
    }


def _monitor(service: Service, platform: Platform) -> Object:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(service, platform),
        "spec": {
            "selector": {"matchLabels": selector(service)},
            "endpoints": [{"port": "http", "path": service.metrics, "interval": "30s"}],
        },
    }
