"""Recordings of other tools, in the form that their documents and sources give; none was made where it names."""

from __future__ import annotations

import base64
import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.cli.main import run_command
from piolet.core.errors import ParseError, PioletError, Refused, UsageError
from piolet.logbook import importing, keeping
from piolet.logbook.importing import FORMATS, Given, bring
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read
from piolet.logbook.records import read_job
from piolet.logbook.schema import FAMILIES
from piolet.tools import dcgm, prometheus

HERE = Path(__file__).parent
START_NS = 1_767_000_000_000_000_000
SECOND_NS = 10**9
H100 = "GPU-34319582-d595-d1c7-d1d2-179bcfa61660"


def rows(book: Logbook, columns: str, family: str = "gpu") -> list[tuple[Any, ...]]:
    key = "gpu" if family == "gpu" else "node"
    with read(book) as reader:
        return reader.database.execute(f"SELECT {columns} FROM {family} ORDER BY time_ns, node, {key}").fetchall()  # noqa: S608 - our own


def rounded(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows whose floats equal all that their eight bits may stand for."""
    return [tuple(pytest.approx(each, rel=2**-8) if isinstance(each, float) else each for each in row) for row in found]


def test_gssr_0_4_keeps_every_gpu_of_a_process(tmp_path: Path) -> None:
    done = bring([HERE / "gssr-0.4/process_0.json"], tmp_path, Given(gpu_model="NVIDIA GH200 120GB"))
    assert (done.rows, done.tools, done.left_out) == (8, ("gssr",), ("fb_total",))
    job = read_job(done.logbook.job)
    assert (job.job_id, job.cluster, job.name, job.command) == (
        "4711",
        "imported",
        "llama",
        ("python train.py --lr 0.1",),
    )
    assert (job.program_started_ns, job.program_ended_ns, job.sample_interval_s) == (
        START_NS,
        START_NS + 2 * SECOND_NS,
        0.5,
    )
    assert [(node, gpu.index, gpu.model) for node, gpu in job.gpus] == [
        ("nid001", 0, "NVIDIA GH200 120GB"),
        ("nid001", 1, "NVIDIA GH200 120GB"),
    ]
    found = rounded(rows(done.logbook, "time_ns, sm_active_ratio, dram_active_ratio, nvlink_rx_bytes_per_s / 1e9"))
    assert found[0] == (START_NS, 0.91, 0.214, 90.0)
    assert [row[1:3] for row in found[::2]] == [(0.91, 0.214), (0.9, 0.214), (0.92, 0.213), (0.91, None)]
    assert [row[1:] for row in found[1::2]] == [(0.0, 0.0, 0.0)] * 4


def test_gssr_2_reads_averages_and_takes_a_links_zero_for_unknown(tmp_path: Path) -> None:
    done = bring([HERE / "gssr-2"], tmp_path, Given(node="nid002"))
    job = read_job(done.logbook.job)
    assert (job.job_id, job.cluster, job.name, job.command) == ("88", "daint", "train", ("python",))
    assert job.program_started_ns == START_NS
    found = rounded(rows(done.logbook, "node, gpu, sm_active_ratio, power_w, nvlink_tx_bytes_per_s > 1e9, energy_j"))
    assert found[:2] == [("nid002", 0, 0.91, 572.0, True, None), ("nid002", 1, 0.91, 572.0, None, None)]
    assert done.left_out == ("DCGM_FI_DEV_FB_FREE_avg",)


def test_dmon_has_no_times_so_lines_are_an_interval_apart(tmp_path: Path) -> None:
    given = Given(job_id="7", interval_s=0.5, started_ns=START_NS)
    done = bring([HERE / "dcgm-3.3/nid001.txt"], tmp_path, given)
    found = rounded(
        rows(done.logbook, "(time_ns - 1767000000000000000) / 1e9, gpu, tensor_active_ratio, power_w, energy_j")
    )
    assert found == [
        (0.0, 0, 0.279, 572.0, 1000),
        (0.0, 1, None, 71.0, 500),
        (0.5, 0, 0.281, 575.0, 1572),
        (0.5, 1, 0.0, 71.0, 571),
        (1.0, 0, 0.279, 572.0, 2147),
        (1.0, 1, 0.0, 71.0, 642),
    ]
    assert done.left_out == ("MUSAM",)
    assert read_job(done.logbook.job).program_ended_ns == START_NS + 3 * SECOND_NS // 2


def test_a_scrape_of_dcgm_exporter_names_node_gpu_and_model(tmp_path: Path) -> None:
    done = bring([HERE / "dcgm-3.3/exporter.prom"], tmp_path, Given(job_id="8", started_ns=START_NS))
    job = read_job(done.logbook.job)
    assert [(node, gpu.uuid[:12], gpu.model) for node, gpu in job.gpus] == [
        ("nid001", H100[:12], "NVIDIA H100 80GB HBM3"),
        ("nid001", "GPU-0d5be1b0", "NVIDIA H100 80GB HBM3"),
    ]
    columns = "time_ns, gpu, tensor_active_ratio, gpu_util_ratio, sm_clock_hz // 1000000, memory_used_bytes >> 20"
    assert rounded(rows(done.logbook, columns)) == [
        (START_NS, 0, 0.279, None, 1755, 71000),
        (START_NS, 1, None, None, 345, None),
    ]
    assert done.left_out == ("DCGM_FI_DEV_VGPU_LICENSE_STATUS",)


def test_omnistat_gives_amd_gpus(tmp_path: Path) -> None:
    done = bring([HERE / "omnistat/omnistat-rocm.csv"], tmp_path, Given(job_id="9"))
    found = rounded(rows(done.logbook, "node, gpu, gpu_util_ratio, power_w, memory_used_bytes >> 20"))
    assert found[:2] == [("frontier01", 0, 0.99, 560.0, 32760), ("frontier01", 1, 0.0, 90.0, None)]
    assert len(found) == 5
    assert read_job(done.logbook.job).sample_interval_s == 1.0
    assert done.left_out == ("rocm_ras_umc_correctable_count",)


def js1(**changes: Any) -> str:
    node = {"total_memory": 128 << 30, "used_memory": 8 << 30, "total_time": 3600.0, "cpus": 24}
    node |= {"gpu_total_memory": {"0": 40 << 30}, "gpu_used_memory": {"0": 26 << 30}, "gpu_utilization": {"0": 65.7}}
    summary = {"nodes": {"della-i14g2": node | changes}, "total_time": 600, "gpus": 1}
    return "JS1:" + base64.b64encode(gzip.compress(json.dumps(summary).encode())).decode()


def test_a_summary_of_jobstats_is_one_sample_of_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "comment.txt"
    path.write_text(js1() + "\n")
    done = bring([path], tmp_path / "root", Given(job_id="10", started_ns=START_NS))
    found = rounded(rows(done.logbook, "time_ns, node, gpu, gpu_util_ratio, memory_used_bytes >> 30"))
    assert found == [(START_NS + 600 * SECOND_NS - 1, "della-i14g2", 0, 0.657, 26)]
    assert rounded(rows(done.logbook, "cpu_cores, cpu_limit_cores, memory_limit_bytes >> 30", "cgroup")) == [
        (6.0, 24.0, 128)
    ]
    for content, why in (
        ("JS1:Short", "too short"),
        ("JS1:%%", "not a recording of jobstats"),
        (js1(gpu_utilization={"a": 1}), "not a recording of jobstats"),
    ):
        path.write_text(content)
        with pytest.raises(ParseError, match=why):
            bring([path], tmp_path / "root", Given(job_id="11"))
    assert [each.name for each in (tmp_path / "root/imported").iterdir()] == ["10"]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_job_of_clustercockpit(tmp_path: Path, *, compressed: bool) -> None:
    source = HERE / "clustercockpit/emmy/1234"
    if compressed:
        for each in source.iterdir():
            (tmp_path / f"{each.name}.gz").write_bytes(gzip.compress(each.read_bytes()))
        source = tmp_path
    done = bring([source], tmp_path / "root", Given())
    job = read_job(done.logbook.job)
    assert (job.cluster, job.job_id, job.user, job.account, job.name) == ("emmy", "1234", "ana", "ml", "bert")
    assert (job.started_ns, job.program_ended_ns, job.sample_interval_s) == (START_NS, START_NS + 180 * SECOND_NS, 60)
    found = rounded(rows(done.logbook, "gpu, gpu_util_ratio, power_w, memory_used_bytes // 1000000000"))
    assert found == [
        (0, 0.0, 80.0, 0),
        (1, 0.0, None, None),
        (0, 0.98, 380.0, 30),
        (0, 1.0, 390.0, 31),
        (1, 1.0, None, None),
    ]
    assert [round(value / 1e9) for (value,) in rows(done.logbook, "memory_used_bytes", "host")] == [
        10,
        20,
        22,
    ]
    assert done.left_out == ("flops_any",)


def test_what_is_no_recording_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    for name, content, why in (
        ("a.txt", "hello", "no recording of a tool"),
        ("b.csv", "timestamp,gpuId,DCGM_FI_PROF_SM_ACTIVE_avg\n1,x,0.5\n", "not a line of GSSR"),
        ("c.json", '{"metadata": {"sampling_time": 1}, "data": {}}', "not a recording of gssr"),
        ("d.txt", "GPU 0 1 2\n#Entity SMACT\n", "no header"),
        ("e.prom", 'DCGM_FI_DEV_GPU_UTIL{gpu="0"} many\n', "not a line of Prometheus"),
        ("f.csv", "metric,rocm_utilization_percentage\n", "three lines of names"),
    ):
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(PioletError, match=why):
            bring([path], tmp_path / "root", Given(job_id="1"))
    assert list(tmp_path.glob("root/*/*")) == []
    with pytest.raises(UsageError, match="no recording of a tool"):
        bring([HERE / "gssr-2/step_0"], tmp_path / "root", Given(), "omnistat")


def _odd(chance: random.Random, value: Any) -> Any:
    """Return JSON in which something, somewhere, is gone or of another kind."""
    if isinstance(value, dict | list) and value and chance.random() < 0.8:
        changed = dict(value) if isinstance(value, dict) else list(value)
        odd = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if chance.random() < 0.2:
            del changed[odd]
        else:
            changed[odd] = _odd(chance, value[odd])
        return changed
    return chance.choice([None, "x", -1, [], {}, "", float("inf"), float("nan"), True, [1], "12", {"a": 1}, 10**30])


def _damaged(chance: random.Random, text: str) -> str:
    if text.startswith("JS1:") and chance.random() < 0.5:
        summary = json.loads(gzip.decompress(base64.b64decode(text[4:])))
        return "JS1:" + base64.b64encode(gzip.compress(json.dumps(_odd(chance, summary)).encode())).decode()
    if text.startswith("{") and chance.random() < 0.7:
        return json.dumps(_odd(chance, json.loads(text)))
    at, word = chance.randrange(len(text)), chance.choice(text.split())
    return chance.choice([text[:at], text.replace(word, chance.choice(["nan", "1e999", "", "9" * 30, "\0"]), 1)])


RECORDINGS = {
    "gssr-0.4/process_0.json": "gssr",
    "gssr-2/step_0/proc_0.csv": "gssr",
    "clustercockpit/emmy/1234/data.json": "clustercockpit",
    "clustercockpit/emmy/1234/meta.json": "clustercockpit",
    "omnistat/omnistat-rocm.csv": "omnistat",
    "dcgm-3.3/nid001.txt": "dcgmi-dmon",
    "dcgm-3.3/exporter.prom": "dcgm-exporter",
    "summary.txt": "jobstats",
}


@pytest.mark.parametrize(("name", "form"), RECORDINGS.items())
def test_a_damaged_recording_is_one_clear_error_or_what_is_left_of_it(tmp_path: Path, name: str, form: str) -> None:
    chance = random.Random(name)  # noqa: S311 - the same damage every time
    text = js1() if form == "jobstats" else (HERE / name).read_text()
    if form == "clustercockpit":
        shutil.copytree((HERE / name).parent, tmp_path, dirs_exist_ok=True)
    path = tmp_path / Path(name).name
    data = path.with_name("data.json") if form == "clustercockpit" else path
    refused: list[PioletError] = []
    for _ in range(60):
        path.write_text(_damaged(chance, text))
        try:
            for family, row in importing._read(data, Given(), form).rows:
                assert set(row) <= set(FAMILIES[family].names)
        except PioletError as error:
            refused.append(error)
    assert refused
    assert all(error.what and str(path.parent) in str(error) for error in refused)


def test_a_job_is_imported_once(tmp_path: Path) -> None:
    paths = [HERE / "gssr-0.4/process_0.json"]
    bring(paths, tmp_path, Given())
    with pytest.raises(Refused, match="has a logbook already"):
        bring(paths, tmp_path, Given())


def test_the_command_says_what_it_brought_and_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIOLET_ROOT", str(tmp_path))
    source = str(HERE / "dcgm-3.3/nid001.txt")
    options = [
        "--job",
        "12",
        "--cluster",
        "alps",
        "--started",
        "2026-01-02T10:00:00",
        "--gpu-model",
        "NVIDIA H100 80GB HBM3",
    ]
    assert run_command(["logbook", "import", source, *options]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "alps/12")
    assert said.err.splitlines() == ["6 rows from dcgmi dmon", "left out, having no column: MUSAM"]
    assert keeping.verify(Logbook(tmp_path / "alps/12")) == []
    assert run_command(["logbook", "import", source, "--as", "gsr"]) == 2
    assert "gssr" in capsys.readouterr().err


def test_discovery_maps_dcgms_numbers_to_uuids() -> None:
    found = dcgm.parse_discovery((HERE / "dcgm-3.3/discovery.txt").read_text())
    assert found == {0: H100, 1: "GPU-0d5be1b0-62a4-4be1-9b2e-1c1f62f9c1aa"}


def test_blanks_of_dcgm_are_never_values() -> None:
    tensor, power = dcgm.BY_NUMBER[1004], dcgm.BY_NUMBER[155]
    for blank in (140737488355328.0, 140737488355330.0, 9223372036854775794, 0x7FFFFFF0, float("nan"), None):
        assert (tensor.value(blank), power.value(blank)) == (None, None)
    assert tensor.value(14073748835532800) is None
    assert tensor.value(1.01) == 1.0
    assert dcgm.BY_NUMBER[1011].value(4.5e11) == 4.5e11


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=20), st.floats(allow_nan=False))
def test_labels_and_values_come_back_from_the_text_format(label: str, value: float) -> None:
    escaped = label.replace("\\", "\\\\").replace('"', '\\"')
    line = f'metric{{a="{escaped}",b="x"}} {value!r} 1767000000000'
    if line.splitlines() != [line]:  # separators that no exporter leaves as they are
        return
    assert list(prometheus.parse(f"# HELP x\n\n{line}\n")) == [
        prometheus.Sample("metric", {"a": label, "b": "x"}, value, START_NS)
    ]


def test_every_format_is_told_from_every_other() -> None:
    files = {
        "gssr": [HERE / "gssr-0.4/process_0.json", HERE / "gssr-2/step_0/proc_0.csv"],
        "omnistat": [HERE / "omnistat/omnistat-rocm.csv"],
        "dcgmi-dmon": [HERE / "dcgm-3.3/nid001.txt"],
        "dcgm-exporter": [HERE / "dcgm-3.3/exporter.prom"],
        "clustercockpit": [HERE / "clustercockpit/emmy/1234/data.json"],
    }
    for name, paths in files.items():
        for path in paths:
            head = path.read_text()
            assert [each for each, form in FORMATS.items() if form.recognises(path, head)] == [name]
