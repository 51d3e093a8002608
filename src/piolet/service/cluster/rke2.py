"""Values to begin an RKE2 cluster with: the CIS profile, Cilium, logins, and the labels and taints of each pool.

Sources: RKE2 documentation: server and agent configuration (`/etc/rancher/rke2/config.yaml`), CIS hardening guide
(`profile: cis`), HelmChartConfig for the packaged Cilium.
"""

from __future__ import annotations

from piolet.service.platform import Platform, Pool
from piolet.service.render.names import Object


def files(platform: Platform) -> dict[str, Object]:
    """Return what goes into which file: one for servers, one for the agents of each pool, one for Cilium."""
    agents = {f"agent-{name}.yaml": _agent(pool) for name, pool in sorted(platform.pools.items())}
    return {"server.yaml": _server(platform), **agents, "rke2-cilium-config.yaml": _CILIUM}


def _server(platform: Platform) -> Object:
    """Servers run no services; the API asks the site's OIDC provider who people are."""
    found: Object = {
        "profile": "cis",
        "cni": "cilium",
        "write-kubeconfig-mode": "0600",
        "secrets-encryption": True,
        "node-taint": ["node-role.kubernetes.io/control-plane=true:NoSchedule"],
    }
    cluster = platform.cluster
    if cluster.oidc_issuer:
        found["kube-apiserver-arg"] = [
            f"oidc-issuer-url={cluster.oidc_issuer}",
            f"oidc-client-id={cluster.oidc_client}",
            f"oidc-groups-claim={cluster.oidc_groups_claim}",
        ]
    return found


def _agent(pool: Pool) -> Object:
    taints = [f"{taint.key}={taint.value}:{taint.effect}" for taint in pool.taints]
    labels = [f"{key}={value}" for key, value in pool.labels.items()]
    return {"profile": "cis", "node-label": labels} | ({"node-taint": taints} if taints else {})


_CILIUM: Object = {
    "apiVersion": "helm.cattle.io/v1",
    "kind": "HelmChartConfig",
    "metadata": {"name": "rke2-cilium", "namespace": "kube-system"},
    "spec": {"valuesContent": "hubble:\n  enabled: true\nencryption:\n  enabled: true\n  type: wireguard\n"},
}
