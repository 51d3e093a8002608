from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_logbooks
import pytest

from piolet.cli.main import run_command
from piolet.logbook.layout import Logbook
from piolet.watch import notebook

RUN = """
import json, runpy, sys
_, told = runpy.run_path(sys.argv[1])["app"].run()
frames = {name: told[name].to_dicts() for name in ("stragglers", "steps", "energy")}
print(json.dumps(frames | {name: told[name] for name in ("step_times", "energy_kwh", "coverage")}))
"""
PERIODS = (1, 1, 1, 3)
"""Seconds between the reports of the made program, over and over."""


def figures(path: Path) -> dict[str, Any]:
    """Run a notebook as a script, in a process of its own where warnings are errors, and return its figures."""
    argv = [sys.executable, "-W", "error", "-c", RUN, str(path)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def written(logbook: Logbook, directory: Path) -> Path:
    path = directory / "its own.py"
    assert run_command(["watch", "notebook", str(logbook.path), "--file", str(path), "--no-open"]) == 0
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Logbook:
    """Two nodes of two GPUs at 400 W for a minute, one at a lower clock; a counter that begins again; uneven steps."""
    rows = []
    for second in range(61):
        for node in ("node1", "node2"):
            for gpu in range(2):
                clock = 1_485_000_000 if (node, gpu) == ("node2", 1) else 1_980_000_000
                energy = 400 * (second % 30 if node == "node1" else second)
                values = {"sm_active": 0.8, "sm_clock_hz": clock, "temperature_c": 60, "energy_j": energy}
                rows.append(("gpu", made_logbooks.row(node, gpu, second, **values)))
    at = 0
    for step in range(41):
        rows.append(("user", made_logbooks._metric("node1", at, "loss", 1.0) | {"step": 2 * step}))
        at += PERIODS[step % len(PERIODS)]
    record = made_logbooks.job(("node1", "node2"), 2, 61)
    return made_logbooks.write(tmp_path_factory.mktemp("it's made"), record, rows)


def test_the_worked_examples_give_the_figures_of_the_logbook(made: Logbook, tmp_path: Path) -> None:
    found = figures(written(made, tmp_path))
    slow, *others = found["stragglers"]
    assert (slow["node"], slow["gpu"]) == ("node2", 1)
    assert slow["clock_of_peers_ratio"] == pytest.approx(0.75)
    assert [each["clock_of_peers_ratio"] for each in others] == [1.0, 1.0, 1.0]
    steps = [each["step_s"] for each in found["steps"]]
    assert sorted(steps) == [0.5] * 30 + [1.5] * 10
    assert found["step_times"]["p50_s"] == statistics.median(steps)
    assert found["step_times"]["p90_s"] == 1.5
    by_node = {each["node"]: each["energy_kwh"] for each in found["energy"]}
    assert by_node == pytest.approx({"node1": 2 * 400 * 58 / 3.6e6, "node2": 2 * 400 * 60 / 3.6e6})
    assert found["energy_kwh"] == pytest.approx(sum(by_node.values()))
    assert found["coverage"]["gpu"] == 1.0


def test_a_job_without_samples_gives_empty_answers(tmp_path: Path) -> None:
    empty = made_logbooks.write(tmp_path, made_logbooks.job(), [])
    found = figures(written(empty, tmp_path))
    assert found["stragglers"] == found["steps"] == found["energy"] == []
    assert found["energy_kwh"] == 0


def test_marimo_renders_it_without_an_error(training: Logbook, tmp_path: Path) -> None:
    path, page = written(training, tmp_path), tmp_path / "page.html"
    argv = [sys.executable, "-m", "marimo", "-q", "export", "html", "--no-sandbox", str(path), "-o", str(page)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Energy of the GPUs: \d\.\d{3} kWh", page.read_text())


def test_a_notebook_that_is_there_is_left_alone(
    training: Logbook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(training, tmp_path)
    path.write_text("my work")
    assert run_command(["watch", "notebook", str(training.path), "--file", str(path), "--no-open"]) == 2
    assert "left as it is" in capsys.readouterr().err
    assert path.read_text() == "my work"


def test_the_editor_is_for_this_machine_and_has_a_token() -> None:
    argv = notebook.editor(Path("a.py"))
    assert not {"--host", "--no-token"} & set(argv)
