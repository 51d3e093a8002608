"""kubectl: the logs of a service's pods. It talks to the cluster as the user, with the user's KUBECONFIG."""

from __future__ import annotations

from piolet.core.run import Runner

TIMEOUT_S = 60.0


def logs_argv(namespace: str, service: str, lines: int) -> list[str]:
    """Return the command that prints the end of the logs of all pods of a service, each line with its pod."""
    label = f"app.kubernetes.io/name={service}"
    return ["kubectl", "logs", f"--namespace={namespace}", f"--selector={label}", f"--tail={lines}", "--prefix"]


def logs(runner: Runner, namespace: str, service: str, lines: int) -> str:
    """Return the end of the logs of all pods of a service; see Runner.run for errors."""
    return runner.run(logs_argv(namespace, service, lines), timeout=TIMEOUT_S).stdout
