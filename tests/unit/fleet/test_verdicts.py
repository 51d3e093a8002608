from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from piolet.core.errors import StorageError
from piolet.fleet import deciding, verdicts
from piolet.fleet.ledger import State, Transition
from piolet.fleet.planning import PREFIX, Seen
from piolet.fleet.state import Fleet

FUTURE_S = 10**11
OURS = Seen("n1", usable=False, drained=True, reason=PREFIX + "seen twice")


def fleet_with(state: State, node: str = "n1", reason: str = "seen twice") -> Fleet:
    fleet = Fleet()
    deciding.add(fleet, [Transition(node, State.IN, state, reason)], 1)
    return fleet


def said(directory: Path, helper: str, node: str = "n1", **environment: str) -> str:
    """What a helper says on `node`, with a PATH on which there is no command of Slurm."""
    done = subprocess.run(
        [directory / helper],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/bin", "SLURMD_NODENAME": node} | environment,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("state", "seen", "judged"),
    [
        (State.SUSPECT, Seen("n1"), "suspect 5 seen twice\n"),
        (State.PROBATION, Seen("n1"), "probation 5 seen twice\n"),
        (State.DRAINED, OURS, "drained 5 seen twice\n"),
        (State.DRAINED, Seen("n1"), None),
        (State.DRAINED, Seen("n1", drained=True, reason="RAM"), None),
        (State.IN, Seen("n1"), None),
        (State.SUSPECT, Seen("n2"), None),
    ],
    ids=["suspect", "probation", "ours", "resumed by somebody", "drained by somebody", "in", "not in Slurm"],
)
def test_a_verdict_stands_for_nodes_of_slurm_that_are_not_in(state, seen, judged) -> None:
    assert verdicts.of(fleet_with(state), [seen], 5).get("n1") == judged


def test_a_reason_never_breaks_its_line(tmp_path) -> None:
    lines = verdicts.of(
        fleet_with(State.SUSPECT, reason="a\\n\nexport X=1\x1b[31m" + "b" * 500), [Seen("n1")], FUTURE_S
    )
    verdicts.write(tmp_path, lines)
    told = said(tmp_path, "task_prolog.sh").splitlines()
    assert told[0] == "export PIOLET_NODE_VERDICT=suspect"
    assert told[1].startswith(r"print piolet: n1 is suspect: a\n export X=1 [31mbbb")
    assert len(told) == 2


def test_helpers_say_what_stands_and_the_task_prolog_once_a_node(tmp_path) -> None:
    verdicts.write(tmp_path, {"n1": f"probation {FUTURE_S} resumed\n"})
    assert said(tmp_path, "health_check.sh", "n1.example.org") == "piolet: n1 is probation: resumed\n"
    assert "print piolet: n1 is probation: resumed" in said(tmp_path, "task_prolog.sh", SLURM_LOCALID="0")
    assert said(tmp_path, "task_prolog.sh", SLURM_LOCALID="1") == "export PIOLET_NODE_VERDICT=probation\n"


@pytest.mark.parametrize("content", [None, "suspect 5 long ago\n", "", "suspect\n", "suspect soon x\n", "\0\xff" * 99])
@pytest.mark.parametrize("helper", verdicts.HELPERS)
def test_a_verdict_that_is_missing_stale_or_broken_says_nothing(tmp_path, helper, content) -> None:
    verdicts.write(tmp_path, {} if content is None else {"n1": content})
    assert said(tmp_path, helper) == ""


def test_verdicts_of_nodes_that_came_in_are_removed_and_nothing_partial_is_left(tmp_path) -> None:
    verdicts.write(tmp_path, {"n1": "suspect 5 x\n", "n2": "suspect 5 x\n"})
    verdicts.write(tmp_path, {"n2": "observed 6 y\n"})
    assert {path.name: path.read_text() for path in (tmp_path / "nodes").iterdir()} == {"n2": "observed 6 y\n"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["health_check.sh", "nodes", "task_prolog.sh"]


def test_a_directory_that_cannot_be_written_is_one_clear_error(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        verdicts.write(tmp_path / "file", {})
