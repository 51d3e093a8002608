"""Bring a lab up: every step makes what is missing and keeps what is there.

That makes one function of starting, of going on after a kill, and of repairing a lab whose daemons died.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from piolet.core.errors import Refused, storage_errors
from piolet.core.run import SystemRunner
from piolet.lab import daemons, machine, processes, status
from piolet.lab.cgroups import ensure_groups
from piolet.lab.cluster import Lab, list_labs, load
from piolet.lab.database import ensure_accounting
from piolet.lab.directory import labs_directory
from piolet.lab.ending import remove
from piolet.lab.files import SIMULATOR, built, write_files
from piolet.lab.network import choose_place, ensure_bridge
from piolet.lab.spec import Spec

_LDCONFIG_S = 30.0
_RECONFIGURE_S = 60.0


@dataclass(frozen=True, slots=True)
class Raised:
    """A lab that is up, the labels of the daemons that had to be started, and whether the lab is new."""

    lab: Lab
    started: tuple[str, ...]
    new: bool


def up(spec: Spec | None = None, directory: Path | None = None) -> Lab:
    """Bring the lab that `spec` describes up and return it once every node is ready; see `bring_up`."""
    return bring_up(spec or Spec(), directory).lab


def bring_up(spec: Spec, directory: Path | None = None) -> Raised:
    """Start what of the lab is not running; `directory` holds all labs (default: setting lab.directory).

    If a new lab cannot be started, nothing of it is left; a lab that was there is left as it is.

    Raises:
        UsageError: parameters that cannot be.
        Refused: not root; the lab exists with other parameters; no place for it on this machine.
        ToolMissing: a program is not installed.
        StorageError: the directory cannot be written.
        ToolError, PioletError: a daemon did not start; the message has the end of its log.
    """
    spec.check()
    machine.check(spec)
    home = labs_directory(directory)
    machine.check_reachable(home)
    with machine.one_at_a_time(), machine.umask(0o022):
        new = not (home / spec.name / "lab.json").exists()
        try:
            lab = _new(spec, home) if new else _existing(spec, home)
            return Raised(lab, tuple(_ensure(lab)), new)
        except BaseException:  # a Ctrl-C too must leave nothing of a new lab
            if new:
                remove(home / spec.name)
            raise


def _new(spec: Spec, home: Path) -> Lab:
    with storage_errors(home, "create the lab's directory"):
        (home / spec.name).mkdir(parents=True, exist_ok=True)
    remove(home / spec.name, keep_directory=True)  # what a kill before lab.json was written may have left
    lab = Lab(home / spec.name, spec, choose_place(spec, list_labs(home), SystemRunner()))
    lab.save()
    return lab


def _existing(spec: Spec, home: Path) -> Lab:
    lab = load(home / spec.name)
    differing = [field.name for field in fields(Spec) if getattr(spec, field.name) != getattr(lab.spec, field.name)]
    if differing:
        known = ", ".join(f"{name} {getattr(lab.spec, name)}" for name in differing)
        raise Refused(
            f"lab {spec.name} exists with other parameters: {known}",
            where=str(lab.directory),
            remedy=f"`piolet lab down --name {spec.name}` first, or choose another --name",
        )
    return lab


def _ensure(lab: Lab) -> list[str]:
    write_files(lab)
    running = processes.daemons(lab.directory)
    labels = ["munged", "slurmctld", *(f"slurmd@{node}" for node in lab.nodes)]
    labels += ["mariadbd", "slurmdbd"] if lab.spec.accounting else []
    if running.keys() >= set(labels):
        return []
    ensure_bridge(lab, SystemRunner())
    ensure_groups(lab)
    with storage_errors(processes.NODE_MOUNT, "create the nodes' mount point"):
        processes.NODE_MOUNT.mkdir(exist_ok=True)
    _ensure_library_cache(lab)
    started = _ensure_control(lab, set(running))
    return started + _ensure_nodes(lab, set(running))


def _ensure_control(lab: Lab, running: set[str]) -> list[str]:
    started = []
    munged, slurmctld = daemons.munged(lab), daemons.slurmctld(lab)
    if munged.label not in running:
        daemons.start(lab, [munged])
        started.append(munged.label)
    daemons.wait_until(lambda: daemons.accepts(lab.munge_socket), lab, munged)
    if lab.spec.accounting:
        started += ensure_accounting(lab, running)
    if slurmctld.label in running:
        return started
    daemons.start(lab, [slurmctld])
    started.append(slurmctld.label)
    daemons.wait_until(lambda: daemons.answers(lab.gateway, lab.place.slurmctld_port), lab, slurmctld)
    if any(label.startswith("slurmd@") for label in running):
        # The new slurmctld knows no node yet: this makes the running slurmds register at once, not in seconds.
        SystemRunner(env=lab.environment()).run(["scontrol", "reconfigure"], timeout=_RECONFIGURE_S)
    return started


def _ensure_nodes(lab: Lab, running: set[str]) -> list[str]:
    """Start the slurmds that are not running; wait for them, and for all nodes if slurmctld knows none of them yet."""
    dead = [node for node in lab.nodes if f"slurmd@{node}" not in running]
    survivors = processes.step_daemons(lab.directory) if dead else {}
    wanted = {node: daemons.slurmd(lab, node, survivors.get(node)) for node in lab.nodes}
    daemons.start(lab, [wanted[node] for node in dead])
    ready: set[str] = set()
    for node in dead if "slurmctld" in running else lab.nodes:
        daemons.wait_until(partial(_is_ready, lab, node, ready), lab, wanted[node])
    return [wanted[node].label for node in dead]


def _is_ready(lab: Lab, node: str, ready: set[str]) -> bool:
    """Tell whether `node` is ready; `ready` keeps those seen so, since one question answers for all nodes."""
    if node not in ready:
        ready |= status.ready_nodes(lab)
    return node in ready


def _ensure_library_cache(lab: Lab) -> None:
    """Make the nodes' /etc/ld.so.cache, which knows the simulated driver library at its place on a node."""
    if built(SIMULATOR) is None or (lab.directory / "etc" / "ld.so.cache").exists():
        return
    node, mount = lab.node_directory(lab.nodes[0]), processes.NODE_MOUNT
    cache, unfinished = lab.directory / "etc" / "ld.so.cache", lab.directory / "etc" / ".ld.so.cache.partial"
    steps = f'mount --bind "$1" {mount} && ldconfig -X -C "$2" {mount}/lib'
    SystemRunner().run(
        ["unshare", "--mount", "/bin/sh", "-c", steps, "sh", str(node), str(unfinished)], timeout=_LDCONFIG_S
    )
    with storage_errors(cache, "write"):
        unfinished.replace(cache)
