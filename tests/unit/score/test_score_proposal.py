from __future__ import annotations

from pathlib import Path

import made_logbooks
import made_runs
import pytest

from piolet.cli.main import run_command
from piolet.core.errors import ToolError, ToolMissing, UsageError
from piolet.core.run import Result
from piolet.logbook.layout import Logbook
from piolet.score.proposal import MOST_RUNS, Proposal, facts, gather, pooled, render, shown
from piolet.tools import chromium


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Logbook]:
    return made_runs.scaling(tmp_path_factory.mktemp("runs"), seconds=30, gpus=2)


@pytest.fixture(scope="module")
def study(runs: list[Logbook]) -> Proposal:
    return gather([runs[2], runs[0], runs[1]])


def test_runs_come_smallest_first_and_scale_against_the_smallest(study: Proposal) -> None:
    assert [run.gpus for run in study.runs] == [2, 4, 8]
    assert [run.efficiency for run in study.runs] == pytest.approx([1, 1 / 1.05, 1 / 1.05**2], rel=1e-3)
    assert study.title == "llm-7b"
    assert study.simulated == ["GPUs"]


def test_everything_is_weighed_by_gpu_hours(study: Proposal) -> None:
    scores = [(run.view.score.score or 0.0, run.gpus) for run in study.runs]
    expected = sum(score * gpus for score, gpus in scores) / sum(gpus for _, gpus in scores)
    steps = pooled(study)
    assert steps[-1].left == pytest.approx(expected)
    assert study.history.score == pytest.approx(expected)
    assert [step.left for step in steps] == sorted((step.left for step in steps), reverse=True)
    assert sum(step.lost for step in steps) == pytest.approx(1 - expected)


def test_the_pages_tell_what_a_reviewer_asks(study: Proposal) -> None:
    page = render(study)
    for part in (
        "Where the GPU-hours went",
        "How this was measured",
        "Simulated: GPUs.",
        "ceilings of: H100",
        ">91\u00a0%<",
    ):
        assert part in page
    assert "http:" not in page
    assert dict(facts(study))["Runs"] == "3, 2 to 8 GPUs"


def test_a_run_without_a_score_is_named_and_counts_in_the_hours(runs: list[Logbook], tmp_path: Path) -> None:
    blind = made_logbooks.write(tmp_path, made_logbooks.job(job_id="77", seconds=60), [])
    study = gather([runs[0], blind])
    assert "<b>Without a score:</b> 77." in render(study)
    assert study.history.gpu_hours > study.history.scored_gpu_hours
    with pytest.raises(UsageError, match="none of these jobs has a saturation score"):
        gather([blind])


def test_of_many_runs_the_largest_are_shown(study: Proposal) -> None:
    many = Proposal("t", study.runs * 6, study.history)
    assert len(shown(many)) <= len(many.runs)
    assert {run.gpus for run in shown(many)} >= {8}
    assert len(many.runs) > MOST_RUNS
    assert f"of {len(many.runs)}; all count above" in render(many)


def test_the_command_wants_to_know_where_to(runs: list[Logbook], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["score", "proposal", str(runs[0].path)]) == 2
    assert "--html FILE, --pdf FILE or both" in capsys.readouterr().err


def test_the_command_writes_the_pages(runs: list[Logbook], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "pages.html"
    argv = ["score", "proposal", *(str(book.path) for book in runs), "--title", "Seven <b>", "--html", str(page)]
    assert run_command(argv) == 0
    assert '<h1 id="title">Seven &lt;b&gt;</h1>' in page.read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == str(page)


class Silent:
    """A runner whose program writes nothing."""

    def run(self, argv: list[str], *, timeout: float, ok: object = (0,), stdin: str | None = None) -> Result:
        assert timeout > 0
        assert (ok, stdin) == ((0,), None)
        return Result(tuple(argv), 0, "", "no paper")


def test_a_printer_that_is_missing_or_prints_nothing_is_one_clear_error(tmp_path: Path) -> None:
    page, pdf = tmp_path / "a.html", tmp_path / "a.pdf"
    page.write_text("x")
    with pytest.raises(ToolMissing, match="chromium was not found") as missing:
        chromium.print_pdf(page, pdf, names=("no-such-browser",))
    assert "print the HTML page from your browser" in str(missing.value)
    with pytest.raises(ToolError, match="no paper"):
        chromium.print_pdf(page, pdf, runner=Silent(), names=("true",))
    assert not pdf.exists()
