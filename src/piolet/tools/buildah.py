"""Building images from a Containerfile with buildah, or podman where there is only that: no root, no daemon."""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import ToolError, ToolMissing
from piolet.core.run import SystemRunner, end

_TOOLS = ("buildah", "podman")


@dataclass(frozen=True, slots=True)
class Build:
    """What to build: a directory, its Containerfile, the tag of the image, its architecture, NAME=VALUE arguments."""

    context: Path
    file: Path
    tag: str
    arch: str
    arguments: Sequence[str] = ()


def tool() -> str:
    """Return the tool that is installed.

    Raises:
        ToolMissing: neither is.
    """
    found = next((name for name in _TOOLS if shutil.which(name)), None)
    if found is None:
        raise ToolMissing("buildah", remedy="install buildah or podman, or build elsewhere and `piolet env import` it")
    return found


def build_argv(program: str, build: Build) -> list[str]:
    """Return the command that builds an image into the tool's storage; layers are kept for the next time.

    `--isolation chroot` needs neither root nor cgroups of the user's.
    """
    given = [word for argument in build.arguments for word in ("--build-arg", argument)]
    how = ["--isolation", "chroot", "--layers", "--arch", build.arch, "--file", str(build.file), "--tag", build.tag]
    return [program, "build", *how, *given, str(build.context)]


def push_argv(program: str, tag: str, layout: Path) -> list[str]:
    """Return the command that writes image `tag` as an OCI directory."""
    return [program, "push", "--quiet", tag, f"oci:{layout}:image"]


def remedy(user: str, user_id: int, etc: Path = Path("/etc")) -> str:
    """Return what to do after a build that failed: without root, RUN needs a range of ids that are the user's."""
    if user_id == 0 or all(_has_range(etc / name, user, user_id) for name in ("subuid", "subgid")):
        return "what it said is above"
    return (
        f"RUN needs ids besides the user's own, and {etc}/subuid and {etc}/subgid have none for {user}: ask the "
        f"administrators for `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` (a range that is "
        "free, and newuidmap, of the package uidmap), or build elsewhere and `piolet env import` it"
    )


def _has_range(file: Path, user: str, user_id: int) -> bool:
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    return any(line.split(":")[0] in {user, str(user_id)} for line in lines)


def run(build: Build, layout: Path) -> None:
    """Build an image and write it to the OCI directory `layout`; what the build says goes to standard error.

    Raises:
        ToolMissing, ToolError: no tool is installed, or the build failed.
    """
    program = tool()
    for argv in (build_argv(program, build), push_argv(program, build.tag, layout)):
        process = SystemRunner().start(argv, stdout=sys.stderr)
        try:
            status = process.wait()
        finally:
            end(process, 10)
        if status:
            raise ToolError(argv, status, remedy=remedy(getpass.getuser(), os.geteuid()))
