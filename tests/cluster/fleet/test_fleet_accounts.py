"""Ends of jobs from the accounting database: the same as the controller tells, and for longer."""

from __future__ import annotations

import secrets
import time

import pytest

from piolet.core.nouns import Status
from piolet.core.run import SystemRunner
from piolet.fleet import gathering
from piolet.fleet.evidence import Evidence, Kind
from piolet.lab import Spec, up
from piolet.tools.slurm.errors import SlurmUnavailable

pytestmark = pytest.mark.cluster


def ends(found: list[Evidence]) -> dict[str, Evidence]:
    return {one.job: one for one in found if one.kind is Kind.JOB}


def test_the_database_tells_what_the_controller_told_and_so_it_counts_once(machine, commands_on, user) -> None:  # noqa: ARG001 - a fixture for its effect
    lab = up(Spec(name=f"fleet-{secrets.token_hex(3)}", nodes=2, gpus=1, accounting=True))
    try:
        run, runner = commands_on(lab), SystemRunner(lab.environment())
        run("srun", "--nodelist=node1", "true", user=user)
        run("srun", "--nodes=2", "false", user=user, check=False)
        while len(told := ends(gathering.from_slurm(runner, "lab", {}, []))) < 2:
            time.sleep(0.1)
        while len(kept := ends(gathering.from_accounts(runner, "lab", 3600))) < 2:
            time.sleep(0.1)  # rows come some seconds late
    finally:
        lab.down()
    assert {job: (one.id, one.code, one.nodes) for job, one in kept.items()} == {
        job: (one.id, one.code, one.nodes) for job, one in told.items()
    }
    assert sorted(one.status for one in kept.values()) == [Status.FAIL, Status.PASS]


def test_without_a_database_the_error_is_slurms(small_lab) -> None:
    with pytest.raises(SlurmUnavailable, match="disabled"):
        gathering.from_accounts(SystemRunner(small_lab.environment()), "lab", 3600)
