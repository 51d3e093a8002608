"""Ceilings from recordings of a load; the loads here are made, no GPU was driven."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import made_logbooks
import pytest

from piolet.cli.main import run_command
from piolet.core.errors import ConfigError
from piolet.logbook.layout import Logbook
from piolet.score import ceilings


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Configuration of this test alone; what is kept of files in this process is forgotten."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    site = tmp_path / "site/config.toml"
    site.parent.mkdir()
    site.write_text("")
    monkeypatch.setenv("PIOLET_SITE_CONFIG", str(site))
    ceilings.forget()
    yield tmp_path / "config/piolet/ceilings.toml"
    ceilings.forget()


def load(root: Path, *, tensor: float = 0.0, dram: float = 0.0, spike: float = 0.0, job_id: str = "60") -> Logbook:
    """A minute of a load, with a spike of two seconds; the second GPU of the node does nothing."""
    record = made_logbooks.job(gpus=2, seconds=60, job_id=job_id)
    rows = made_logbooks.constant(record, 60, tensor_active=tensor, dram_active=dram)
    driven = [
        (family, row | ({"tensor_active_ratio": 0.0, "dram_active_ratio": 0.0} if row["gpu"] == 1 else {}))
        for family, row in rows
    ]
    for _, row in driven[5:7] if spike else ():
        row["tensor_active_ratio"] = spike
    return made_logbooks.write(root, record, driven)


def test_what_was_held_is_the_ceiling_and_a_spike_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    books = [load(tmp_path, tensor=0.91, spike=0.99), load(tmp_path, dram=0.84, tensor=0.2, job_id="61")]
    assert run_command(["score", "calibrate", *(str(book.path) for book in books)]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()[1:]]
    assert [(row[-5], row[-4], row[-1]) for row in rows] == [("dram", "0.840", "61"), ("tensor", "0.910", "60")]
    assert "not written; --write would keep them in" in err
    assert ceilings.of_model(made_logbooks.H100)["tensor"] == 0.93


def test_written_ceilings_go_before_the_published_ones(
    tmp_path: Path, own_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["score", "calibrate", str(load(tmp_path, tensor=0.91).path), "--write"]) == 0
    assert run_command(["score", "calibrate", str(load(tmp_path, dram=0.84, job_id="61").path), "--write"]) == 0
    assert str(own_files) in capsys.readouterr().err
    ceilings.forget()
    found = ceilings.of_model(made_logbooks.H100)
    assert (found.name, found["tensor"], found["dram"], found["fp64"]) == ("H100 as measured here", 0.91, 0.84, 1.0)
    assert found.by_key["tensor"].source.startswith("measured by piolet score calibrate: held for ")
    assert found.peak_flop_per_s == 989e12
    assert ceilings.of_model("NVIDIA A100-SXM4-80GB")["tensor"] == 0.93


def test_a_gpu_that_nobody_described_is_known_once_it_was_measured(own_files: Path) -> None:
    own_files.parent.mkdir(parents=True)
    own_files.write_text('["New GPU"]\ntensor = { ceiling = 0.5, source = "our own load" }\n')
    assert ceilings.of_model("New GPU").known
    assert ceilings.of_model("New GPU")["tensor"] == 0.5
    assert not ceilings.of_model("New GPU 2").known


def test_a_load_that_drove_nothing_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["score", "calibrate", str(load(tmp_path, tensor=0.3).path)]) == 2
    said = capsys.readouterr().err
    assert "no counter was driven to its limit for 20 s" in said
    assert "dcgmproftester12" in said


@pytest.mark.parametrize(
    "text",
    ["[a]\ntensor = 0.9\n", '[a]\ntenser = { ceiling = 0.9, source = "x" }\n', "a = 1\n", "[a\n",
     '[a]\ntensor = { ceiling = -1, source = "x" }\n'],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_key(text: str, own_files: Path) -> None:
    own_files.parent.mkdir(parents=True)
    own_files.write_text(text)
    with pytest.raises(ConfigError) as caught:
        ceilings.of_model("a")
    assert str(own_files) in str(caught.value)
