"""The tree of files that operators own: `piolet service platform render`."""

from __future__ import annotations

from piolet.core.errors import UsageError
from piolet.service.cluster import admission, argocd, rke2, tenancy
from piolet.service.platform import Platform
from piolet.service.render.yamltext import dump


def rendered(platform: Platform) -> dict[str, str]:
    """Return the text of each file by its path; the same platform gives the same bytes.

    Raises:
        UsageError: the platform names no repository, so that Argo CD has nothing to read.
    """
    if platform.gitops is None:
        raise UsageError("the platform names no repository", remedy="add [gitops]: Argo CD reads it")
    projects = {f"projects/{name}.yaml": dump([*tenancy.objects(platform, name)]) for name in sorted(platform.projects)}
    return projects | {
        "argocd.yaml": dump([*argocd.objects(platform, platform.gitops)]),
        "policies.yaml": dump([*admission.objects(platform)]),
        **{f"rke2/{name}": dump([content]) for name, content in rke2.files(platform).items()},
    }
