"""The same environment under Podman: a command line made of the plan.

Podman makes the container; what a plan wants done in it (requirements, start-up commands, derived variables, the
entrypoint) is done by `piolet-enter --within`, which is mounted into it. What only a node can resolve is refused.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import Refused
from piolet.core.native import native
from piolet.core.run import SystemRunner, exit_status
from piolet.env.model import ImageKind, Mount, MountKind
from piolet.env.plan import ContainerPlan
from piolet.tools import squashfs

ENTER, PLAN = "/.piolet/enter", "/.piolet/plan"
PODMANS_OWN = {"/proc", "/sys"}
"""Mounts that Podman makes itself."""
_IMPOSSIBLE = {"library", "program", "symlink", "ldcache", "include"}
_HOST = ("--network", "host", "--ipc", "host", "--uts", "host")
_CONFINED = (
    "--security-opt",
    "no-new-privileges",
    "--security-opt",
    "label=disable",
    "--cgroups",
    "disabled",
)  # the step's own hold it


@dataclass(frozen=True, slots=True)
class Trees:
    """Directories that show what is in the plan's squashfs files, by the path of each."""

    of: Mapping[str, str]

    def shown(self, path: str) -> str:
        """Return where the content of the file at `path` is."""
        return self.of.get(path, path)


def squashfs_files(plan: ContainerPlan) -> tuple[str, ...]:
    """Return the squashfs files of a plan, the image's first."""
    image = [str(plan.image.path)] if plan.image.kind is ImageKind.SQUASHFS else []
    mounted = [mount.source for mount in plan.mounts if mount.kind is MountKind.SQUASHFS]
    return tuple(dict.fromkeys([*image, *mounted]))


def argv(plan: ContainerPlan, plan_file: Path, trees: Trees, environ: Mapping[str, str], cwd: Path) -> list[str]:
    """Return the command line, to which the program's words are added.

    Raises:
        Refused: the plan asks for what only the nodes' own runtime can give.
    """
    refuse_impossible(plan)
    devices = [word for line in plan.lines if line.key == "cdi" for word in ("--device", line.words[1])]
    root = trees.shown(str(plan.image.path))
    words = [*_without(plan, environ), "podman", "run", "--rm", "--interactive", "--env-host"]
    words += [*_HOST, *_CONFINED, *_identity(), *devices, *_mounts(plan, trees)]
    for variable in plan.variables:
        words += [] if variable.value is None else ["--env", f"{variable.name}={variable.value}"]
    words += ["--workdir", plan.workdir or _caller(plan, cwd)]
    words += [] if plan.writable else ["--read-only", "--read-only-tmpfs=false"]
    within = [line for line in plan.lines if line.key != "cdi"]
    if within:
        words += _bind(str(native("piolet-enter")), ENTER, "ro=true") + _bind(str(plan_file), PLAN, "ro=true")
    words += ["--rootfs", f"{root}:O" if plan.writable or within else root]
    return words + ([ENTER, "--within", PLAN, "--"] if within else [])


def refuse_impossible(plan: ContainerPlan) -> None:
    """Raise Refused for lines that need the node's own linker or tree."""
    if plan.overlay:
        raise Refused(f"Podman cannot give `overlay {plan.overlay}`", where=plan.origins["overlay"], remedy="remove it")
    for line in plan.lines:
        if line.key in _IMPOSSIBLE:
            raise Refused(
                f"Podman cannot give `{line.key} {line.shown()}`",
                where=line.origin,
                remedy="switch the hook off, or use the other runtime: --runtime piolet",
            )


def command_lines(plan: ContainerPlan, plan_file: Path, environ: Mapping[str, str], cwd: Path) -> str:
    """Return shell lines that start the environment under Podman; the program's words follow the last."""
    files = squashfs_files(plan)
    trees = Trees({path: f"PIOLET_TREE_{index}" for index, path in enumerate(files)})
    lines = []
    for path, name in trees.of.items():
        lines.append(f'{name}=$(mktemp -d) && squashfuse {shlex.quote(path)} "${name}"')
    command = shlex.join(argv(plan, plan_file, trees, environ, cwd))
    for name in trees.of.values():
        command = command.replace(f"{name}:O", f'"${name}:O"').replace(f"src={name},", f'"src=${name}",')
    return "\n".join([*lines, command])


def run(plan: ContainerPlan, plan_file: Path, program: Sequence[str], environ: Mapping[str, str], cwd: Path) -> int:
    """Run a program in the environment under Podman; return its exit status."""
    refuse_impossible(plan)
    runner = SystemRunner()
    with contextlib.ExitStack() as stack:
        trees = Trees(
            {path: str(stack.enter_context(squashfs.mounted(runner, Path(path)))) for path in squashfs_files(plan)}
        )
        words = argv(plan, plan_file, trees, environ, cwd)
        if sys.stdin.isatty() and sys.stdout.isatty():
            words.insert(words.index("--interactive"), "--tty")
        process = runner.start([*words, *program], stdin=None)
        while True:
            try:
                return exit_status(process.wait())
            except KeyboardInterrupt:  # the terminal has told the program too: it decides
                continue


def _identity() -> list[str]:
    uid, gid = os.getuid(), os.getgid()
    return ["--user", f"{uid}:{gid}", *(["--userns", "keep-id", "--group-add", "keep-groups"] if uid else [])]


def _mounts(plan: ContainerPlan, trees: Trees) -> Iterator[str]:
    for mount in plan.mounts:
        if mount.target in PODMANS_OWN and mount.origin == "piolet":
            continue
        if mount.kind is MountKind.TMPFS:
            yield from _tmpfs(mount)
        elif not ("optional" in mount.flags and not Path(mount.source).exists()):
            source = trees.shown(mount.source)
            flags = ["ro=true"] if "ro" in mount.flags or mount.kind is MountKind.SQUASHFS else []
            flags += ["bind-propagation=rprivate"] if mount.kind is MountKind.BIND else []
            flags += [name for name in ("noexec", "dev") if name in mount.flags]
            yield from _bind(source, mount.target, *flags)


def _bind(source: str, target: str, *flags: str) -> list[str]:
    return ["--mount", ",".join(("type=bind", f"src={_quoted(source)}", f"dst={_quoted(target)}", *flags))]


def _tmpfs(mount: Mount) -> list[str]:
    given = [f"tmpfs-{flag}" for flag in mount.flags]
    return ["--mount", ",".join(("type=tmpfs", f"dst={_quoted(mount.target)}", *given))]


def _quoted(path: str) -> str:
    """Return a path as --mount takes it: it reads its words as CSV."""
    if "," in path or '"' in path:
        raise Refused("Podman cannot mount a path with a comma or a quote", where=path, remedy="use --runtime piolet")
    return path


def _without(plan: ContainerPlan, environ: Mapping[str, str]) -> list[str]:
    """Return what keeps the caller's variables from Podman that the plan unsets."""
    names = [variable.name for variable in plan.variables if variable.value is None and variable.name in environ]
    return ["env", *(word for name in names for word in ("-u", name))] if names else []


def _caller(plan: ContainerPlan, cwd: Path) -> str:
    """Return the caller's directory if a mount brings it along, else the root."""
    brought = [mount.target for mount in plan.mounts if mount.kind is MountKind.BIND and mount.source == mount.target]
    return str(cwd) if any(cwd.is_relative_to(target) for target in brought) else "/"
