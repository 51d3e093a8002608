"""A service on this machine, under `podman kube play`: a development runtime, which is not Kubernetes.

Its pod is the one that is rendered for the cluster, without what Podman ignores or misreads: placement, probes, claims
and single files of a ConfigMap. Probes, the forwarded port and volumes are ours. Nobody is asked to log in, no network
is closed, and Podman lets a container be root that Kubernetes refuses: `check` is what tells.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from piolet.core import toml
from piolet.core.errors import UsageError
from piolet.core.files import write_text
from piolet.core.run import SystemRunner, end
from piolet.service.model import Health, Service
from piolet.service.platform import Platform
from piolet.service.reading import ServiceFile
from piolet.service.render import rendered
from piolet.service.render.names import Object
from piolet.service.render.yamltext import dump
from piolet.service.slurm import judging
from piolet.service.slurm.judging import Next
from piolet.tools import podman

PROBE_TIMEOUT_S = 5.0
_LOGS_GRACE_S = 2.0
_POLL_S = 0.2

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Local:
    """How a service runs here: its pod, the container in it, its volumes, and where it answers."""

    pod: Object
    name: str
    container: str
    volumes: tuple[str, ...]
    address: str


def adapted(file: ServiceFile, platform: Platform, *, port: int, secrets: Mapping[str, str], files: Path) -> Local:
    """Return the pod of the service for this machine: `port` is forwarded, `files` holds its configuration files.

    Raises:
        UsageError: a secret has no value.
    """
    service = file.service
    name = f"piolet-{service.project}-{service.name}"
    container, spec = _rendered_container(file, platform)
    environment = list(_environment(container.get("env", []), secrets))
    claims = {f"data-{each}": f"{name}-{each}" for each in service.storage}
    config = {path: files / f"file-{i}" for i, path in enumerate(file.contents)}
    mounts = [*_mounts(service), *_file_mounts(config)]
    pod = {
        "securityContext": spec["securityContext"],
        "restartPolicy": "Never" if service.schedule else "Always",
        "containers": [_container(service, container, environment, port) | {"volumeMounts": mounts}],
        "volumes": [*_volumes(claims), *_file_volumes(config)],
    }
    return Local(
        pod={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod},
        name=name,
        container=f"{name}-{service.name}",
        volumes=tuple(claims.values()),
        address=f"http://127.0.0.1:{port}" if service.port else "",
    )


def run(file: ServiceFile, platform: Platform, *, port: int, secrets: Mapping[str, str], say: Say) -> int:
    """Run the service until it is interrupted, or to its end if it has a schedule; return the exit status.

    Raises:
        UsageError: a secret has no value.
        ToolMissing, ToolError: podman is not there, or refuses.
    """
    runner, service = SystemRunner(own_session=True), file.service
    with TemporaryDirectory(prefix="piolet-service-") as directory:
        files = Path(directory)
        files.chmod(0o755)
        for i, text in enumerate(file.contents.values()):
            write_text(files / f"file-{i}", text)
        local = adapted(file, platform, port=port, secrets=secrets, files=files)
        podman.remove_pod(runner, local.name)
        for volume in local.volumes:
            podman.make_volume(runner, volume, service.user, service.group)
        try:
            podman.play(runner, dump([local.pod]))
            logs = runner.start(podman.logs_argv(local.container), new_session=True)
            try:
                return _followed(local, service, runner, say)
            finally:
                end(logs, _LOGS_GRACE_S)
        finally:
            podman.remove_pod(runner, local.name)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that its pod is removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read_secrets(path: Path | None) -> dict[str, str]:
    """Return the values of a file of secrets: VARIABLE = "value"; none without a file."""
    values = toml.read(path).data if path else {}
    return {name: str(value) for name, value in values.items()}


def _followed(local: Local, service: Service, runner: SystemRunner, say: Say) -> int:
    """Probe the service as the cluster would, and start it anew where the cluster would."""
    if service.health is None or not service.port:
        return _ended(local, runner)
    health, began_s = judging.Health(), time.monotonic()
    while True:
        ready = health.ready
        health = health.after(answered=_answers(local.address, service.health))
        if health.ready != ready:
            say(f"ready: {local.address}" if health.ready else "not ready: three probes were not answered")
        elapsed_s = time.monotonic() - began_s
        what, why = judging.decided(
            health, elapsed_s=elapsed_s, startup_s=service.health.startup_s, wanted=True, heir=None
        )
        if what is Next.GIVE_UP:
            say(f"started anew: {why}")
            podman.restart(runner, local.container)
            health, began_s = judging.Health(), time.monotonic()
        time.sleep(service.health.period_s if health.ready else min(service.health.period_s, 1))


def _ended(local: Local, runner: SystemRunner) -> int:
    while (status := podman.exit_status(runner, local.container)) is None:
        time.sleep(_POLL_S)
    return status


def _answers(address: str, health: Health) -> bool:
    try:
        return not httpx2.get(address + health.path, timeout=PROBE_TIMEOUT_S, trust_env=False).is_error
    except httpx2.HTTPError:
        return False


def _rendered_container(file: ServiceFile, platform: Platform) -> tuple[Object, Object]:
    """Return the container, and the specification of the pod, as they are rendered for the cluster."""
    for each in rendered(file.service, platform, file.contents).objects:
        if each["kind"] in {"Deployment", "StatefulSet", "CronJob"}:
            spec = each["spec"].get("jobTemplate", each)["spec"]["template"]["spec"]
            return spec["containers"][0], spec
    raise AssertionError("a service has a workload")


def _container(service: Service, rendered: Object, environment: list[dict[str, str]], port: int) -> Object:
    known = {each["name"]: each["value"] for each in environment}
    return {
        "name": service.name,
        "image": service.image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": rendered["securityContext"],
        "env": environment,
        **_command(service, known),
        **({"ports": [_forwarded(service.port, port)]} if service.port else {}),
    }


def _environment(variables: list[Object], secrets: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Podman expands no ``$(NAME)``, so that a doubled dollar sign is one again."""
    for each in variables:
        name = each["name"]
        if "value" in each:
            yield {"name": name, "value": each["value"].replace("$$(", "$(")}
        elif name in secrets:
            yield {"name": name, "value": secrets[name]}
        else:
            raise UsageError(f"the secret {name} has no value here", remedy="write it into a file: --secrets FILE")


def _command(service: Service, variables: Mapping[str, str]) -> Object:
    words = [judging.expanded(word, variables) for word in service.command]
    return {"command": words} if words else {}


def _forwarded(port: int, host_port: int) -> Object:
    return {"containerPort": port, "hostPort": host_port, "hostIP": "127.0.0.1", "protocol": "TCP"}


def _mounts(service: Service) -> Iterator[Object]:
    for name, volume in service.storage.items():
        yield {"name": f"data-{name}", "mountPath": volume.path, "readOnly": volume.read_only}


def _volumes(claims: Mapping[str, str]) -> Iterator[Object]:
    for name, claim in claims.items():
        yield {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def _file_mounts(config: Mapping[str, Path]) -> Iterator[Object]:
    for path, source in config.items():
        yield {"name": source.name, "mountPath": path, "readOnly": True}


def _file_volumes(config: Mapping[str, Path]) -> Iterator[Object]:
    for source in config.values():
        yield {"name": source.name, "hostPath": {"path": str(source), "type": "File"}}
