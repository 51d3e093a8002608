"""Podman: pods from manifests, their volumes and their state, for services on this machine."""

from __future__ import annotations

from piolet.core.run import Runner

TIMEOUT_S = 60.0
PULL_TIMEOUT_S = 3600.0
"""Playing a manifest may pull its image."""
GRACE_S = 3
"""Seconds that a service of the development runtime has to end; many ignore SIGTERM as process 1."""


def play_argv() -> list[str]:
    """Return the command that makes and starts the objects of a manifest on stdin."""
    return ["podman", "kube", "play", "--quiet", "-"]


def play(runner: Runner, manifest: str) -> None:
    """Make and start the objects of a manifest; what is there already under their names is an error."""
    runner.run(play_argv(), timeout=PULL_TIMEOUT_S, stdin=manifest)


def remove_pod(runner: Runner, name: str) -> None:
    """Remove a pod with its containers, after GRACE_S to end; one that is not there is no error. Volumes stay."""
    runner.run(["podman", "pod", "rm", "--force", "--ignore", f"--time={GRACE_S}", name], timeout=TIMEOUT_S)


def make_volume(runner: Runner, name: str, user: int, group: int) -> None:
    """Make a volume that `user` owns; one that is there already stays as it is."""
    if runner.run(["podman", "volume", "exists", name], timeout=TIMEOUT_S, ok=(0, 1)).rc:
        owner = f"o=uid={user},gid={group}"
        runner.run(["podman", "volume", "create", "--opt", owner, name], timeout=TIMEOUT_S)


def restart(runner: Runner, container: str) -> None:
    """Start a container anew, after GRACE_S to end."""
    runner.run(["podman", "restart", f"--time={GRACE_S}", container], timeout=TIMEOUT_S)


def state_argv(container: str) -> list[str]:
    """Return the command that tells a container's state and exit status."""
    return ["podman", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", container]


def exit_status(runner: Runner, container: str) -> int | None:
    """Return how a container ended; None if it has not."""
    return parse_state(runner.run(state_argv(container), timeout=TIMEOUT_S).stdout)


def parse_state(text: str) -> int | None:
    """Return the exit status of ``exited 1``; None for every other state."""
    state, _, status = text.strip().partition(" ")
    return int(status) if state in {"exited", "stopped"} else None


def logs_argv(container: str) -> list[str]:
    """Return the command that prints what a container says, as it says it."""
    return ["podman", "logs", "--follow", container]
