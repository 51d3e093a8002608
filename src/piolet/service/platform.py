"""The site's `platform.toml`: what the service plane has and what it allows. Operators write it, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from piolet.core import toml
from piolet.core.errors import UsageError
from piolet.core.settings import Settings
from piolet.service.model import Expose, Host, Name, RunOn, Size, Table, Text
from piolet.service.reading import validated

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
LabelName = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9.-]{1,100}/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$")
]
Circle = Literal["project", "institution", "internet"]
Group = Annotated[str, StringConstraints(pattern=r'^[^"\\\x00-\x1f]+$', max_length=200)]
Cidr = Annotated[str, StringConstraints(pattern=r"^[0-9a-f.:]+/[0-9]{1,3}$")]
Amount = Annotated[int | float, Field(ge=0)]


class Taint(Table):
    """A taint of a pool's nodes, which the pods of that pool tolerate."""

    key: LabelName
    value: Label = ""
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] = "NoSchedule"


class Pool(Table):
    """Nodes of one kind: the labels that select them, their taints, and the name of their GPU resource."""

    labels: Annotated[dict[LabelName, Label], Field(min_length=1)]
    taints: list[Taint] = Field(default_factory=list)
    gpu_resource: LabelName = "nvidia.com/gpu"


class Storage(Table):
    """A kind of storage: the storage class and whether one node or many may mount it."""

    storage_class: Name
    mode: Literal["ReadWriteMany", "ReadWriteOnce"]


class Exposure(Table):
    """How a circle of people reaches services: through which ingress class or gateway, with which certificates."""

    kind: Literal["ingress", "httproute"] = "ingress"
    class_name: Name
    namespace: Name
    issuer: Name = "default"
    annotations: dict[LabelName, Text] = Field(default_factory=dict)
    oidc_annotations: dict[LabelName, Text] = Field(default_factory=dict)


class Project(Table):
    """What a project may use at once, all replicas of a service together, and the OIDC groups that may look at it."""

    groups: list[Group] = Field(default_factory=list)
    slurm_account: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]*$")] = ""
    gpu_hours_per_month: Amount | None = None
    cpu_hours_per_month: Amount | None = None
    cpus: Amount = 16
    memory: Size = "64GiB"
    gpus: Annotated[int, Field(ge=0)] = 0
    storage: Size = "1TiB"


class GitOps(Table):
    """The repository that Argo CD reads, and the branch."""

    url: Annotated[Text, Field(min_length=1)]
    branch: Annotated[Text, Field(min_length=1)] = "main"


class Cluster(Table):
    """The Kubernetes cluster: its release, how people log in, and what pods may reach beside their own project."""

    version: Annotated[str, StringConstraints(pattern=r"^1\.[0-9]{2}$")] = "1.34"
    oidc_issuer: Text = ""
    oidc_client: Text = "kubernetes"
    oidc_groups_claim: Text = "groups"
    egress: list[Cidr] = Field(default_factory=list)
    argocd_namespace: Name = "argocd"

    @property
    def release(self) -> int:
        """The minor number of the release: 34 of 1.34."""
        return int(self.version.partition(".")[2])


class Platform(Table):
    """Everything about a site that services depend on."""

    domain: Host
    namespace_prefix: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*-$", max_length=20)] = "svc-"
    registries: Annotated[list[Text], Field(min_length=1)]
    gateway_namespace: Name = "inference-gateway"
    monitoring_namespace: Name = "monitoring"
    secret_store: Name = "vault"  # noqa: S105 - a name, not a secret
    lease_required: bool = True
    lease_days: Annotated[int, Field(ge=1)] = 365
    most_replicas: Annotated[int, Field(ge=1)] = 8
    gitops: GitOps | None = None
    cluster: Cluster = Cluster()
    pools: dict[Literal["commodity", "gpu"], Pool]
    storage: dict[Name, Storage] = Field(default_factory=dict)
    exposure: dict[Circle, Exposure] = Field(default_factory=dict)
    projects: dict[Name, Project] = Field(default_factory=dict)

    def namespace(self, project: str) -> str:
        """Return the one namespace of a project."""
        return f"{self.namespace_prefix}{project}"

    def project_domain(self, project: str) -> str:
        """Return the domain below which all hosts of a project are."""
        return f"{project}.{self.domain}"

    def pool(self, run_on: RunOn) -> Pool | None:
        """Return the nodes for `run_on`; None where the site has none."""
        return next((pool for name, pool in self.pools.items() if name == run_on), None)

    def way_in(self, expose: Expose) -> Exposure | None:
        """Return how `expose` is done here; None for nobody, or where the site does not offer it."""
        return next((way for circle, way in self.exposure.items() if circle == expose), None)


def read(path: Path) -> Platform:
    """Read and check a `platform.toml`; see `reading.validated`."""
    document = toml.read(path)
    platform = validated(document, Platform)
    if "commodity" not in platform.pools:
        raise document.error("there is no pool of commodity nodes", "pools", remedy="describe [pools.commodity]")
    for circle, way in platform.exposure.items():
        if circle != "project" and not way.oidc_annotations:
            what = f"exposure.{circle} has no oidc_annotations: nobody would be asked to log in"
            raise document.error(what, f"exposure.{circle}", remedy="say how its ingress class asks for a login")
    return platform


def without_kubernetes(project: str) -> Platform:
    """Return what holds for the services of `project` on Slurm where operators have described no platform."""
    nowhere, projects = "none.invalid", {project: Project()}
    return Platform(domain=nowhere, registries=[nowhere], pools={}, projects=projects, lease_required=False)


def of_site(settings: Settings) -> Platform:
    """Read the platform that the setting `service.platform` names.

    Raises:
        UsageError: it names none, or no file is there.
    """
    path = settings.service.platform
    if not path.is_file():
        raise UsageError(
            "no service platform is described here",
            where=f"{path} (setting service.platform)",
            remedy="operators write one, as examples/04-services/platform.toml; to try: PIOLET_SERVICE_PLATFORM=FILE",
        )
    return read(path)
