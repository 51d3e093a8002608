"""A lab of the fleet's own: its tests drain nodes."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator

import fleet_kills
import pytest

from piolet.core.run import SystemRunner
from piolet.lab import Lab, Spec, daemons, processes, up

POLICY = """
[limits]
out_fraction = 0.5
group_fraction = 0.5
[[rule]]
name = "again"
summary = "fatal errors of the same GPU"
source = "test"
kind = "xid"
code = ["79"]
count = 2
per = "gpu"
independent = "job"
to = "drained"
[course]
clean_jobs = 2
[healing]
ladder = ["reset"]
reset = ["reset-gpu", "{node}", "{gpu}"]
reboot = ["reboot-node", "{node}"]
vet = ["piolet", "vet", "run", "--protocol", "{protocol}"]
"""


@pytest.fixture(scope="session")
def small_lab(machine) -> Iterator[Lab]:  # noqa: ARG001 - a fixture for its effect
    lab = up(Spec(name=f"fleet-{secrets.token_hex(3)}", nodes=4, gpus=1))
    try:
        _give_out_tokens(lab)
        yield lab
    finally:
        lab.down()


def _give_out_tokens(lab: Lab) -> None:
    """Let the lab's slurmctld make JSON Web Tokens, for which it has to start again."""
    key = lab.directory / "jwt.key"
    key.write_bytes(secrets.token_bytes(32))
    key.chmod(0o600)
    with lab.slurm_conf.open("a") as conf:
        conf.write(f"AuthAltTypes=auth/jwt\nAuthAltParameters=jwt_key={key}\n")
    slurmctld = daemons.slurmctld(lab)
    os.kill(processes.daemons(lab.directory)[slurmctld.label].pid, signal.SIGKILL)
    while slurmctld.label in processes.daemons(lab.directory):
        time.sleep(0.02)
    daemons.start(lab, [slurmctld])
    daemons.wait_until(lambda: daemons.answers(lab.gateway, lab.place.slurmctld_port), lab, slurmctld)
    SystemRunner(lab.environment()).run(["scontrol", "reconfigure"], timeout=60)  # slurmds register at once


@pytest.fixture
def runner(small_lab) -> Iterator[SystemRunner]:
    """Runs Slurm's commands; whatever a test did to the cluster is undone after it."""
    runner = SystemRunner(small_lab.environment())
    yield runner
    fleet_kills.at_rest(runner)


@pytest.fixture
def settings(tmp_path) -> dict[str, str]:
    (tmp_path / "policy.toml").write_text(POLICY)
    return {"PIOLET_FLEET_DATABASE": str(tmp_path / "fleet.db"), "PIOLET_FLEET_POLICY": str(tmp_path / "policy.toml")}


@pytest.fixture
def applying(small_lab, runner, settings, tmp_path, commands_on) -> fleet_kills.Applying:  # noqa: ARG001 - it tidies up
    return fleet_kills.wrapped(tmp_path / "wrapped", commands_on(small_lab).environment() | settings)
