"""The files of a lab: its directories, configuration, devices and what each node sees as /run/piolet-node.

Everything is written only where it is missing or differs, so a lab that is up keeps its jobs and its GPUs' faults.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piolet.core.errors import ToolMissing, storage_errors
from piolet.core.files import replacing, write_text
from piolet.core.native import native
from piolet.lab.cluster import LOOPBACK, Lab, slurmd_port
from piolet.lab.gpus import write_inventory
from piolet.lab.spec import Network

if TYPE_CHECKING:
    from jinja2 import Environment

SIMULATOR = "libnvidia-ml.so.1"
SPANK_PLUGIN = "spank_piolet.so"
_NVIDIA_MAJOR = (
    195  # the character devices that the NVIDIA driver registers (Linux: Documentation/admin-guide/devices.txt)
)
_PUBLIC, _PRIVATE, _SHARED = 0o755, 0o700, 0o777
_DIRECTORIES = {
    "etc": _PUBLIC,
    "run": _PUBLIC,
    "log": _PUBLIC,
    "dev": _PUBLIC,
    "nodes": _PUBLIC,
    "spool": _PUBLIC,
    "pmix": _PUBLIC,
    "munge": _PUBLIC,
    "munge/private": _PRIVATE,
    "state": _PRIVATE,
}
_MODES = {"slurmdbd.conf": 0o600, "prolog.sh": 0o755}
_MUNGE_KEY_BYTES = 128


def write_files(lab: Lab) -> None:
    """Write every file that the lab's daemons need; StorageError if the file system refuses."""
    with storage_errors(lab.directory, "write the lab's files"):
        for name, mode in _DIRECTORIES.items():
            _directory(lab.directory / name, mode)
        _munge_key(lab.directory / "munge" / "private" / "key")
        _devices(lab)
        for node in lab.nodes:
            _node(lab, node)
    for name, text in configuration(lab).items():
        _write_if_changed(lab.directory / "etc" / name, text, _MODES.get(name, 0o644))


def configuration(lab: Lab) -> dict[str, str]:
    """Return the text of each configuration file of the lab by name."""
    names = ["slurm.conf", "gres.conf", "plugstack.conf", "hosts", "prolog.sh", "piolet.toml"]
    names += ["cgroup.conf"] if lab.spec.isolation.value == "cgroup" else []
    names += ["slurmdbd.conf"] if lab.spec.accounting else []
    names += ["mpi.conf"] if _has_pmix() else []
    values: dict[str, Any] = {
        "lab": lab,
        "loopback": LOOPBACK,
        "machine": socket.gethostname(),
        "node_lines": _node_lines(lab),
        "isolation": lab.spec.isolation.value,
        "plugin": built(SPANK_PLUGIN),
        "piolet": Path(sys.executable).parent / "piolet",
        "simulator": built(SIMULATOR),
    }
    templates = _templates()
    return {name: templates.get_template(f"{name}.jinja").render(values) for name in names}


def built(name: str) -> Path | None:
    """Return the path of the compiled part `name`, None if it was not built: a lab does without."""
    try:
        return native(name)
    except ToolMissing:
        return None


def notices(lab: Lab) -> tuple[str, ...]:
    """Return what this lab cannot do because a compiled part is missing, each with what to do."""
    off = {SPANK_PLUGIN: "containers (srun --environment) are off", SIMULATOR: "simulated GPUs cannot be read"}
    return tuple(
        f"{what}: {name} was not built; run `make native`, then `piolet lab up --name {lab.name}` again"
        for name, what in off.items()
        if built(name) is None
    )


def _node_lines(lab: Lab) -> tuple[str, ...]:
    """Return the beginnings of the NodeName lines: names, addresses and ports."""
    nodes = f"node[1-{lab.spec.nodes}]" if lab.spec.nodes > 1 else "node1"
    first = slurmd_port(lab, lab.nodes[0])
    if lab.spec.network is Network.HOST:
        ports = f"[{first}-{first + lab.spec.nodes - 1}]" if lab.spec.nodes > 1 else str(first)
        return (f"{nodes} NodeAddr={LOOPBACK} Port={ports}",)
    return tuple(f"{node} NodeAddr={lab.address(node)} Port={first}" for node in lab.nodes)


def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - slow, and only `up` needs it

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
    )


def _has_pmix() -> bool:
    return any(Path("/usr/lib").glob("**/libpmix.so.2"))


def _node(lab: Lab, node: str) -> None:
    directory = lab.node_directory(node)
    _directory(directory, _PUBLIC)
    _directory(directory / "lib", _PUBLIC)
    _directory(lab.directory / "spool" / node, _PUBLIC)
    _directory(lab.directory / "spool" / f"{node}.pmix", _SHARED | stat.S_ISVTX)
    simulator = built(SIMULATOR)
    if simulator:
        _copy_if_changed(simulator, directory / "lib" / SIMULATOR)
    if not (directory / "gpu" / "inventory").exists():
        write_inventory(directory / "gpu", node=node, count=lab.spec.gpus, model=lab.spec.model)
    log = directory / "kmsg"
    log.touch()
    log.chmod(0o666)  # as the timelines: whoever may provoke a fault may log it


def _devices(lab: Lab) -> None:
    for index in range(lab.spec.gpus):
        path = lab.directory / "dev" / f"nvidia{index}"
        if not path.exists():
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(_NVIDIA_MAJOR, index))
        path.chmod(0o666)


def _munge_key(path: Path) -> None:
    if not path.exists():
        with replacing(path) as partial:
            partial.touch(mode=0o400)
            partial.write_bytes(secrets.token_bytes(_MUNGE_KEY_BYTES))


def _directory(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def _copy_if_changed(source: Path, target: Path) -> None:
    content = source.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        with replacing(target) as partial:
            shutil.copyfile(source, partial)
            partial.chmod(0o755)


def _write_if_changed(path: Path, text: str, mode: int) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text, mode=mode)
