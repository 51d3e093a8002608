"""What the command line says about faults, phases and scripts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import UsageError
from piolet.lab import gpus
from piolet.lab.gpu_models import profiles
from piolet.lab.gpu_script import parse_script
from piolet.lab.gpus import Fault, FaultKind, Phase, parse_faults


def test_flags_become_faults_and_those_not_given_do_not():
    assert parse_faults(
        {
            "xid": 79, "throttle": "thermal", "ecc_uncorrected": "3", "nvlink_down": 4, "slow": 0.7,
            "leftover_memory": "20GiB", "clear": True, "temp": None, "hang": False,
        }
    ) == (
        Fault(FaultKind.CLEAR),
        Fault(FaultKind.XID, "79"),
        Fault(FaultKind.THROTTLE, "thermal"),
        Fault(FaultKind.ECC_UNCORRECTED, "3"),
        Fault(FaultKind.NVLINK_DOWN, "4"),
        Fault(FaultKind.SLOW, "0.7"),
        Fault(FaultKind.LEFTOVER_MEMORY, str(20 << 30)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("xid", 0), ("xid", "many"), ("xid", 1000), ("throttle", "hot"), ("ecc_corrected", 0), ("ecc_uncorrected", -1),
        ("remap", "yes"), ("nvlink_down", 18), ("nvlink_errors", 0), ("slow", 0), ("slow", 1), ("slow", "nan"),
        ("pcie_width", 3), ("pcie_width", 16),
        ("leftover_memory", "20 gigs"), ("leftover_memory", "0"), ("leftover_memory", "9999TB"),
        ("temp", 151), ("hang", "yes"), ("clear", 1),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_what_is_allowed(name, value):
    with pytest.raises(UsageError) as refused:
        parse_faults({name: value})
    assert refused.value.remedy == f"give {gpus.FLAGS[name].allowed}"


def test_an_unknown_flag_and_no_flag_are_refused():
    with pytest.raises(UsageError, match="slo"):
        parse_faults({"slo": 0.5})
    with pytest.raises(UsageError, match="no fault given"):
        parse_faults({"xid": None, "clear": False})


@given(st.integers(1, 2**19), st.sampled_from(["", "B", "KB", "KiB", "MB", "MiB", "GB", "GiB", "gib"]))
def test_sizes_are_read_in_their_units(number, unit):
    factor = {"": 1, "B": 1, "KB": 10**3, "KIB": 2**10, "MB": 10**6, "MIB": 2**20, "GB": 10**9, "GIB": 2**30}
    (fault,) = parse_faults({"leftover_memory": f"{number}{unit}"})
    assert int(fault.argument) == number * factor[unit.upper()]


STEPS = st.recursive(
    st.lists(
        st.builds("{} {} level={:.2f}".format, st.sampled_from(Phase), st.integers(1, 999), st.floats(0, 1)),
        min_size=1, max_size=4,
    ),
    lambda inner: st.builds(lambda count, body: [f"loop {count}", *body, "end"], st.integers(1, 99), inner),
    max_leaves=3,
)  # fmt: skip


@given(STEPS)
def test_scripts_keep_their_steps_however_they_are_written(steps):
    if max_depth(steps) > 4:
        with pytest.raises(UsageError):
            parse_script("\n".join(steps))
    else:
        assert parse_script("\n".join(f"  {step}   # why" for step in steps)) == tuple(steps)
        assert parse_script("; ".join(steps)) == tuple(steps)


def max_depth(steps):
    depth = deepest = 0
    for step in steps:
        depth += step.startswith("loop") - (step == "end")
        deepest = max(deepest, depth)
    return deepest


@pytest.mark.parametrize(
    "text",
    [
        "", "# nothing", "sleep 5", "compute", "compute 0", "compute -1", "compute 1 level=2", "compute 1 ttl=3", "end",
        "loop 2\ncompute 1", "loop 0\ncompute 1\nend", "loop 2\nend", "loop\ncompute 1\nend", "end 2",
        "\n".join(["compute 1"] * 65),
    ],
)  # fmt: skip
def test_a_wrong_script_is_refused_before_it_is_armed(text):
    with pytest.raises(UsageError):
        parse_script(text)


def test_every_script_that_python_accepts_runs_in_the_simulator(node):
    text = "startup 2\nloop 2\ncompute 3 level=.5 mem=1000\nloop forever\ncommunication 0.01\nend\nend"
    gpus.arm_script(node.directory, 0, text, time_ns=node.ns(1))
    early, middle, late = node.ask(
        (2.9, "memory_v2", "gpu:0"), (5.9, "memory_v2", "gpu:0"), (500, "gpm", "gpu:0", 510, [61])
    )
    assert early["used"] == pytest.approx(0.1 * 81559 * 2**20, rel=1e-6)
    assert middle["used"] == 1000
    assert late["61"] == pytest.approx(0.6 * 450e9 / 2**20)


def test_wrong_hints_are_refused_before_they_are_written(node):
    with pytest.raises(UsageError, match="computing"):
        node.hint(0, "computing")
    with pytest.raises(UsageError, match="level"):
        node.hint(0, "compute", level=1.5)
    with pytest.raises(UsageError, match="ttl"):
        node.hint(0, "compute", ttl_s=-1)
    assert (node.directory / "gpu0.log").read_text() == ""


def test_phases_and_models_say_where_their_numbers_come_from():
    for model in gpus.models().values():
        assert model.sources
        assert any("chosen" in source for source in model.sources)


def test_the_reference_page_gives_the_numbers_that_are_used():
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "gpu-simulator.md").read_text()
    rows = {cells[0]: cells[1:] for line in page.splitlines() if len(cells := table_cells(line)) > 2}
    for phase, shares in profiles().items():
        assert rows[phase] == [f"{shares.get(name, 0):g}" for name in rows["Phase"]]
    for name, cells in rows.items():
        if name in gpus.models()["h100"].numbers:
            assert cells == [str(model.numbers[name]) for model in gpus.models().values()]
    assert all(f"--{name.replace('_', '-')}" in page for name in gpus.FLAGS)


def table_cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
