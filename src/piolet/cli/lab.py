"""`piolet lab`: a real Slurm cluster with simulated GPUs on this machine."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from piolet.cli.common import Format, OneOf, format_option, print_json, print_table, progress
from piolet.core.errors import ToolMissing, UsageError
from piolet.core.nodeset import NodeSet
from piolet.core.text import plural
from piolet.lab import Isolation, Lab, LabStatus, Network, Spec, bring_up, down, list_labs, notices, open_lab, status
from piolet.lab.gpu_faults import FLAGS, FaultKind
from piolet.lab.gpus import arm_script, inject, models, parse_faults, read_inventory

name_option = click.option("--name", default="lab", show_default=True, help="Which lab; several run side by side.")
user_option = click.option("--user", default=None, help="Run as this ordinary user (needs root).")


_FAULT_HELP = {
    FaultKind.CLEAR: "Undo every fault of this GPU.",
    FaultKind.XID: "Let the driver log this Xid; 79 also loses the GPU.",
    FaultKind.THROTTLE: "Slow its clocks for this reason: thermal, power or hw-slowdown.",
    FaultKind.ECC_CORRECTED: "Count so many corrected memory errors.",
    FaultKind.ECC_UNCORRECTED: "Count so many uncorrected memory errors; a row waits for its remap, with Xid 48.",
    FaultKind.REMAP: "The state of its row remapper: pending or failed.",
    FaultKind.NVLINK_DOWN: "Take this NVLink down, with Xid 74.",
    FaultKind.NVLINK_ERRORS: "Count so many NVLink errors.",
    FaultKind.PCIE_WIDTH: "Leave its PCIe link so many lanes.",
    FaultKind.SLOW: "Run at this factor of its speed, such as 0.7.",
    FaultKind.LEFTOVER_MEMORY: "Let so much memory be in use by nobody, such as 20GiB.",
    FaultKind.TEMP: "Hold it at this temperature in degrees Celsius.",
    FaultKind.HANG: "Show what a deadlock looks like, whatever the workload says.",
}


@click.group()
def command() -> None:
    """A real Slurm cluster with simulated GPUs on this machine."""


@command.command("up")
@name_option
@click.option("--nodes", default=4, show_default=True, help="How many nodes.")
@click.option("--gpus", default=4, show_default=True, help="How many GPUs on each node.")
@click.option("--model", default="h100", show_default=True, help="Their model: " + ", ".join(models()) + ".")
@click.option(
    "--net",
    "network",
    type=OneOf(Network),
    default=Network.HOST.value,
    show_default=True,
    help="Nodes on this machine's network, or each with an address of its own.",
)
@click.option("--accounting", is_flag=True, help="With slurmdbd and MariaDB, so that sacct answers.")
@click.option(
    "--isolation",
    type=OneOf(Isolation),
    default=Isolation.NONE.value,
    show_default=True,
    help="Confine jobs to the memory and devices that they were given.",
)
def up_command(**values: Any) -> None:  # noqa: ANN401 - the options are the fields of a Spec
    """Start a lab, or what of it is not running."""
    spec = Spec(**values)
    name, nodes = spec.name, plural(spec.nodes, "node")
    with progress(f"starting {nodes}"):
        raised = bring_up(spec)
    if raised.new:
        click.echo(f"Lab {name} is up: {nodes} with {plural(spec.gpus, f'simulated {spec.model} GPU')} each.")
    elif raised.started:
        click.echo(f"Lab {name} is up again; started: {', '.join(raised.started)}.")
    else:
        click.echo(f"Lab {name} is up already.")
    for notice in notices(raised.lab):
        click.echo(f"  {notice}")
    if raised.new:
        click.echo(f"  try: piolet lab exec --name {name} -- srun --nodes {spec.nodes} hostname")


@command.command("down")
@name_option
def down_command(name: str) -> None:
    """End a lab's jobs and remove all of it."""
    with progress(f"taking lab {name} down"):
        existed = down(name)
    click.echo(f"Lab {name} is down; nothing of it is left." if existed else f"There is no lab {name}; nothing to do.")


@command.command("status")
@name_option
@format_option
def status_command(name: str, output: Format) -> None:
    """Print a lab's nodes, their states and reasons, and its daemons. Exit status 1 if something is not well."""
    found = status(open_lab(name))
    if output is Format.JSON:
        print_json(_status_json(found))
    else:
        _print_status(found)
    if not found.is_up:
        raise click.exceptions.Exit(1)


@command.command("list")
@format_option
def list_command(output: Format) -> None:
    """Print the labs of this machine."""
    labs = list_labs()
    if output is Format.JSON:
        print_json([lab.to_json() for lab in labs])
        return
    rows = [(*lab.spec.to_json().values(), lab.directory) for lab in labs]
    print_table((*Spec().to_json(), "directory"), rows)


@command.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@user_option
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def exec_command(name: str, user: str | None, argv: tuple[str, ...]) -> None:
    """Run CMD with the lab's Slurm. The exit status is CMD's."""
    _become(open_lab(name), user, argv)


@command.command("shell")
@name_option
@user_option
def shell_command(name: str, user: str | None) -> None:
    """Open a shell with the lab's Slurm."""
    lab = open_lab(name)
    click.echo(f"Slurm of lab {name}: sinfo, srun, sbatch work here. `exit` leaves; the lab stays up.", err=True)
    _become(lab, user, [os.environ.get("SHELL") or "/bin/sh", "-i"])


def _fault_options(function: Any) -> Any:  # noqa: ANN401 - a decorator of click's
    for fault, flag in reversed(list(FLAGS.items())):
        option = "--" + fault.replace("_", "-")
        is_switch = flag.kind in {FaultKind.CLEAR, FaultKind.HANG}
        function = click.option(option, fault, is_flag=is_switch, default=None, help=_FAULT_HELP[flag.kind])(function)
    return function


@command.command("gpu")
@name_option
@click.argument("gpu", metavar="NODE:INDEX")
@_fault_options
def gpu_command(name: str, gpu: str, **values: object) -> None:
    """Make the simulated GPU NODE:INDEX (node2:1) fail, or --clear its faults."""
    directory, index = _gpu(open_lab(name), gpu)
    faults = parse_faults(values)
    for fault in faults:
        inject(directory, index, fault)
    click.echo(f"{gpu} (simulated): " + ", ".join(f"{fault.kind} {fault.argument}".strip() for fault in faults))


@command.command("workload")
@name_option
@click.argument("nodes", metavar="NODES")
@click.argument("script", type=click.File("r"))
def workload_command(name: str, nodes: str, script: TextIO) -> None:
    """Let every simulated GPU of NODES (node[1-4]) follow SCRIPT, a file of phases (- for standard input).

    A line is a phase and its seconds: startup, compute, communication, input, checkpoint, hang or idle. `loop N`
    and `loop forever` repeat what stands before `end`.
    """
    lab, text = open_lab(name), script.read()
    directories = [lab.node_directory(node) / "gpu" for node in NodeSet(nodes)]
    targets = [(directory, gpu.index) for directory in directories for gpu in read_inventory(directory)]
    for directory, index in targets:
        arm_script(directory, index, text)
    click.echo(f"{nodes} (simulated): {plural(len(targets), 'GPU')} follow {script.name}")


def _gpu(lab: Lab, target: str) -> tuple[Path, int]:
    node, colon, index = target.partition(":")
    if not colon or not index.isdecimal():
        raise UsageError(f'"{target}" is not a GPU', where="NODE:INDEX", remedy="write node2:1 for the second of node2")
    directory = lab.node_directory(node) / "gpu"
    count = len(read_inventory(directory))
    if int(index) >= count:
        raise UsageError(f"{node} has no GPU {index}", where=target, remedy=f"its GPUs are 0 to {count - 1}")
    return directory, int(index)


def _become(lab: Lab, user: str | None, argv: Sequence[str]) -> NoReturn:
    """Replace this process with `argv` in the lab's environment, as `user` if given."""
    environment = os.environ | lab.environment()
    if user:
        environment |= _become_user(user)
    try:
        os.execvpe(argv[0], list(argv), environment)  # noqa: S606 - the user's own command, and no shell
    except FileNotFoundError as error:
        raise ToolMissing(argv[0]) from error
    except PermissionError as error:
        raise UsageError(
            f"cannot run {argv[0]}", where=str(error), remedy="check its mode and this directory's"
        ) from error


def _become_user(name: str) -> dict[str, str]:
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f'there is no user "{name}"', where="--user", remedy="see `getent passwd`") from None
    try:
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except PermissionError as error:
        raise UsageError(f"cannot become {name}", where="--user", remedy="run this as root") from error
    return {"HOME": user.pw_dir, "USER": name, "LOGNAME": name, "SHELL": user.pw_shell}


def _status_json(found: LabStatus) -> dict[str, Any]:
    nodes = [{"node": node.node, "state": node.state, "reason": node.reason} for node in found.nodes]
    whole = {"up": found.is_up, "directory": str(found.lab.directory), "daemons": dict(found.daemons)}
    return found.lab.to_json() | whole | {"nodes": nodes, "notices": list(found.notices)}


def _print_status(found: LabStatus) -> None:
    spec = found.lab.spec
    click.echo(f"Lab {spec.name}: {plural(spec.gpus, f'simulated {spec.model} GPU')} a node; {found.lab.directory}")
    print_table(("node", "state", "reason"), [(node.node, node.state, node.reason) for node in found.nodes])
    if found.daemons:
        click.echo()
        print_table(("daemon", "pid"), [(label, pid or "not running") for label, pid in found.daemons.items()])
    for notice in found.notices:
        click.echo(f"\n{notice}")
