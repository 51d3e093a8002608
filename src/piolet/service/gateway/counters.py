"""What Prometheus reads of the gateway: requests, their times and tokens, and the replicas of each service."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


@dataclass(frozen=True, slots=True)
class Counters:
    """The metrics, in a registry of their own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    retries: Counter = field(init=False)
    tokens: Counter = field(init=False)
    first_byte: Histogram = field(init=False)
    whole: Histogram = field(init=False)
    replicas: Gauge = field(init=False)

    def __post_init__(self) -> None:
        def made(kind: type, name: str, text: str, labels: tuple[str, ...], **more: object) -> object:
            return kind(f"piolet_gateway_{name}", text, labels, registry=self.registry, **more)

        service = ("service",)
        for name, value in {
            "requests": made(Counter, "requests", "Requests, by how they ended", ("project", "service", "status")),
            "retries": made(Counter, "retries", "Requests sent to another replica", service),
            "tokens": made(Counter, "tokens", "Tokens", ("project", "service", "part")),
            "first_byte": made(Histogram, "first_byte_seconds", "Until the answer begins", service, buckets=_SECONDS),
            "whole": made(Histogram, "seconds", "Until the answer is whole", service, buckets=_SECONDS),
            "replicas": made(Gauge, "replicas", "Replicas that requests can go to", service),
        }.items():
            object.__setattr__(self, name, value)
