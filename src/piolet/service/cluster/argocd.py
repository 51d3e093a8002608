"""What Argo CD is told: a project each, applications found in the repository, and who may look at them.

Sources: Argo CD documentation: declarative setup (AppProject), git directory generator, sync impersonation
(`destinationServiceAccounts`, from 2.13), RBAC.
"""

from __future__ import annotations

from collections.abc import Iterator

from piolet.service.cluster.tenancy import DEPLOYER, group_of
from piolet.service.platform import GitOps, Platform
from piolet.service.policies import KINDS
from piolet.service.render.names import Object

SERVER = "https://kubernetes.default.svc"
ROOT = "projects"


def objects(platform: Platform, gitops: GitOps) -> Iterator[Object]:
    """Yield the objects of Argo CD's own namespace."""
    yield _settings(platform)
    yield _people(platform)
    for name in sorted(platform.projects):
        yield _app_project(platform, gitops, name)
        yield _applications(platform, gitops, name)


def _made(platform: Platform, kind: str, name: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": platform.cluster.argocd_namespace}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _config_map(platform: Platform, name: str, data: dict[str, str]) -> Object:
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "argocd"}
    metadata = {"name": name, "namespace": platform.cluster.argocd_namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _settings(platform: Platform) -> Object:
    """Argo CD applies a project's manifests as that project's deployer, and as nobody mightier."""
    return _config_map(
        platform,
        "argocd-cm",
        {
            "application.resourceTrackingMethod": "annotation",
            "application.sync.impersonation.enabled": "true",
            "timeout.reconciliation": "60s",
        },
    )


def _people(platform: Platform) -> Object:
    lines: list[str] = []
    for name, project in sorted(platform.projects.items()):
        may = ("applications, get", "applications, sync", "logs, get")
        lines += [f"p, role:project-{name}, {what}, {name}/*, allow" for what in may]
        lines += [f'g, "{group}", role:project-{name}' for group in project.groups]
    return _config_map(platform, "argocd-rbac-cm", {"policy.default": "", "policy.csv": "\n".join(lines) + "\n"})


def _app_project(platform: Platform, gitops: GitOps, name: str) -> Object:
    """One source, one namespace, the kinds that services are rendered to, and nothing of the cluster's own."""
    namespace = platform.namespace(name)
    return _made(
        platform,
        "AppProject",
        name,
        {
            "description": f"Services of the project {name}",
            "sourceRepos": [gitops.url],
            "destinations": [{"server": SERVER, "namespace": namespace}],
            "clusterResourceWhitelist": [],
            "namespaceResourceWhitelist": [{"group": group_of(kind), "kind": kind} for kind in sorted(KINDS)],
            "destinationServiceAccounts": [
                {"server": SERVER, "namespace": namespace, "defaultServiceAccount": DEPLOYER}
            ],
        },
    )


def _applications(platform: Platform, gitops: GitOps, name: str) -> Object:
    """Every directory below the project's own becomes an application of that project, whatever it holds."""
    template = {
        "metadata": {"name": f"{name}--{{{{.path.basename}}}}"},
        "spec": {
            "project": name,
            "source": {
                "repoURL": gitops.url,
                "targetRevision": gitops.branch,
                "path": "{{.path.path}}",
                "directory": {"include": "*.yaml"},
            },
            "destination": {"server": SERVER, "namespace": platform.namespace(name)},
            "syncPolicy": {
                "automated": {"prune": True, "selfHeal": True},
                "retry": {"limit": 5, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "3m"}},
            },
        },
    }
    generator = {
        "git": {
            "repoURL": gitops.url,
            "revision": gitops.branch,
            "directories": [{"path": f"{ROOT}/{name}/*"}],
        }
    }
    spec = {"goTemplate": True, "goTemplateOptions": ["missingkey=error"], "generators": [generator]}
    return _made(platform, "ApplicationSet", f"project-{name}", spec | {"template": template})
