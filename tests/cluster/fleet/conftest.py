"""A lab of the fleet's own: its tests drain nodes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import fleet_kills
import pytest

from piolet.core.run import SystemRunner
from piolet.lab import Lab, Spec, up

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
reset = ["sh", "RESET", "{node}", "{gpu}"]
vet = ["piolet", "vet", "run", "--protocol", "{protocol}"]
"""

# The site's command: it notes each call, waits while there is a file `wait`, and does what a reset of the GPU does.
RESET = """
cd {directory} && echo "$*" >> resets
while [ -e wait ]; do sleep 0.05; done
exec piolet lab gpu --name {lab} "$1:0" --clear
"""


@pytest.fixture(scope="session")
def small_lab(machine) -> Iterator[Lab]:  # noqa: ARG001 - a fixture for its effect
    lab = up(Spec(name=f"fleet-{secrets.token_hex(3)}", nodes=4, gpus=1))
    yield lab
    lab.down()


@pytest.fixture
def runner(small_lab) -> Iterator[SystemRunner]:
    runner = SystemRunner(small_lab.environment())
    yield runner
    fleet_kills.at_rest(runner)


@pytest.fixture
def settings(tmp_path, small_lab) -> dict[str, str]:
    (tmp_path / "reset.sh").write_text(RESET.format(directory=tmp_path, lab=small_lab.name))
    (tmp_path / "policy.toml").write_text(POLICY.replace("RESET", str(tmp_path / "reset.sh")))
    return {"PIOLET_FLEET_DATABASE": str(tmp_path / "fleet.db"), "PIOLET_FLEET_POLICY": str(tmp_path / "policy.toml")}


@pytest.fixture
def applying(small_lab, settings, tmp_path, commands_on) -> fleet_kills.Applying:
    return fleet_kills.wrapped(tmp_path / "wrapped", commands_on(small_lab).environment() | settings)
