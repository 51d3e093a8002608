"""What Prometheus reads of the gateway: requests, their times and tokens, and the replicas of each service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Counters:
    """The metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        name, service = "piolet_gateway_{}".format, ("service",)
        ended, part = ("project", "service", "status"), ("project", "service", "part")
        self.requests = Counter(name("requests"), "Requests, by how they ended", ended, registry=registry)
        self.retries = Counter(name("retries"), "Requests sent to another replica", service, registry=registry)
        self.tokens = Counter(name("tokens"), "Tokens", part, registry=registry)
        self.replicas = Gauge(name("replicas"), "Replicas that requests can go to", service, registry=registry)
        first, whole = "Until the answer begins", "Until the answer is whole"
        self.first_byte = Histogram(name("first_byte_seconds"), first, service, registry=registry, buckets=_SECONDS)
        self.whole = Histogram(name("seconds"), whole, service, registry=registry, buckets=_SECONDS)
