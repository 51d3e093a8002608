"""All objects of a service, and the files they are written to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from piolet.service.model import Service
from piolet.service.platform import Platform
from piolet.service.render import network, workload
from piolet.service.render.names import Object, metadata
from piolet.service.render.yamltext import dump


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of a service, in a stable order."""

    objects: tuple[Object, ...]

    def files(self) -> dict[str, str]:
        """Return the text of each file by its name: one a kind, such as ``deployment.yaml``."""
        kinds: dict[str, list[Object]] = {}
        for each in self.objects:
            kinds.setdefault(each["kind"], []).append(each)
        return {f"{kind.lower()}.yaml": dump(found) for kind, found in sorted(kinds.items())}

    def text(self) -> str:
        """Return all objects as one stream of YAML documents."""
        return dump(self.objects)


def rendered(service: Service, platform: Platform, contents: Mapping[str, str]) -> Manifests:
    """Return the objects of `service`; `contents` are its configuration files by their path in the container."""
    found = [*workload.objects(service, platform, dict(contents))]
    if service.secrets:
        found.insert(0, _external_secret(service, platform))
    return Manifests((*found, *network.objects(service, platform)))


def _external_secret(service: Service, platform: Platform) -> Object:
    """Only references: external-secrets fetches the values from the site's store, into the project's namespace."""
    data = []
    for name, reference in service.secrets.items():
        key, _, entry = reference.partition("#")
        data.append({"secretKey": name, "remoteRef": {"key": key, "property": entry}})
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": metadata(service, platform, "-secrets"),
        "spec": {
            "refreshInterval": "1h",
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": platform.secret_store},
            "target": {"name": f"{service.name}-secrets"},
            "data": data,
        },
    }
