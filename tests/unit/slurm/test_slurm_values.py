from __future__ import annotations

import math

import pytest

from piolet.core.errors import ParseError, UsageError
from piolet.tools.slurm import jobid, times, tres
from piolet.tools.slurm.job import parse_exit, parse_nodes
from piolet.tools.slurm.states import JobState, NodeBase, NodeFlag, NodeState, parse_job_state, parse_node_state
from piolet.tools.slurm.tres import Gres

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00", 0),
        ("5:00", 300),
        ("01:02:03", 3723),
        ("1-00:00:00", 86400),
        ("2-3", 183600),
        ("2-3:04", 183840),
        ("90", 5400),
        ("00:01.500", 1.5),
        ("UNLIMITED", math.inf),
        ("infinite", math.inf),
        ("NOT_SET", None),
        ("Partition_Limit", None),
        ("", None),
        ("N/A", None),
    ],
)  # fmt: skip - a table
def test_durations(text, seconds) -> None:
    assert times.parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["soon", "1:2:3:4", "-5", "1-", "1-1:1:1:1", "\u0663:00"])
def test_what_is_no_duration_is_a_parse_error(text) -> None:
    with pytest.raises(ParseError, match="not a duration"):
        times.parse_duration_s(text)


@pytest.mark.parametrize("text", ["Unknown", "None", "NONE", "N/A", "(null)", "", " 0 "])
def test_times_that_are_not_known_are_none(text) -> None:
    assert times.parse_timestamp_ns(text) is None


def test_what_is_no_time_is_a_parse_error() -> None:
    with pytest.raises(ParseError, match="not a time"):
        times.parse_timestamp_ns("yesterday")


def test_a_tres_string_of_a_gpu_job() -> None:
    amounts = tres.parse_tres("cpu=8,mem=16000M,node=1,billing=8,gres/gpu=4,gres/gpu:h100=4")
    assert amounts["mem"] == 16000 << 20
    assert amounts["cpu"] == 8
    assert tres.gpus(amounts) == 4
    assert tres.gpus(tres.parse_tres("gres/gpu:a100=2,gres/gpu:h100=1")) == 3


@pytest.mark.parametrize(
    ("text", "size"),
    [("500", 500 << 20), ("99G", 99 * GIB), ("1.5T", 1536 * GIB), ("512K", 1 << 19), ("0", 0), ("2g", 2 * GIB)],
)
def test_memory_suffixes(text, size) -> None:
    assert tres.parse_bytes(text) == size


def test_large_counts_are_shortened_by_thousands() -> None:
    assert tres.parse_tres("billing=1.50K") == {"billing": 1500}


@pytest.mark.parametrize("text", ["cpu", "cpu=", "=3", "cpu=x", "mem=5Q", "cpu=1,,node=1"])
def test_what_is_no_tres_string_is_a_parse_error(text) -> None:
    with pytest.raises(ParseError):
        tres.parse_tres(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu:h100:4", (Gres("gpu", "h100", 4),)),
        ("gpu:4", (Gres("gpu", "", 4),)),
        ("gpu", (Gres("gpu", "", 1),)),
        ("gpu:h100:4(S:0-1),nvme:1", (Gres("gpu", "h100", 4), Gres("nvme", "", 1))),
        ("gpu:h100:3(IDX:0,2-3)", (Gres("gpu", "h100", 3, (0, 2, 3)),)),
        ("gpu:h100:0(IDX:N/A)", (Gres("gpu", "h100", 0),)),
        ("bandwidth:lustre:4G", (Gres("bandwidth", "lustre", 4 * GIB),)),
        ("(null)", ()),
    ],
)
def test_gres(text, expected) -> None:
    assert tres.parse_gres(text) == expected


@pytest.mark.parametrize("text", ["gpu:h100:4(", ":4", "gpu:h100:3(IDX:x)"])
def test_what_is_no_gres_is_a_parse_error(text) -> None:
    with pytest.raises(ParseError):
        tres.parse_gres(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123", jobid.JobId(123)),
        ("123_4", jobid.JobId(123, task=4)),
        ("123_[1-5%2]", jobid.JobId(123, tasks="1-5%2")),
        ("123+1", jobid.JobId(123, offset=1)),
        ("123.batch", jobid.JobId(123, step="batch")),
        ("123_4.0", jobid.JobId(123, task=4, step="0")),
        (" 7\n", jobid.JobId(7)),
    ],
)
def test_job_ids(text, expected) -> None:
    assert jobid.parse(text) == expected


@pytest.mark.parametrize("text", ["", "x", "12 13", "1_x", "-1", "1_[", "--help", "١٢"])
def test_what_is_no_job_id_is_a_usage_error(text) -> None:
    with pytest.raises(UsageError, match="is not a job id") as caught:
        jobid.parse(text)
    assert "squeue" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("RUNNING", JobState.RUNNING),
        ("R", JobState.RUNNING),
        ("CG", JobState.COMPLETING),
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("TO", JobState.TIMEOUT),
        ("OUT_OF_ME+", JobState.UNKNOWN),
        ("NEW_WORD", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
    ],
)  # fmt: skip - a table
def test_job_states(text, state) -> None:
    assert parse_job_state(text) is state


def test_a_state_that_nobody_knows_is_not_an_end() -> None:
    assert not JobState.UNKNOWN.finished
    assert not JobState.COMPLETING.finished
    assert not JobState.RESIZING.finished
    assert JobState.TIMEOUT.finished


@pytest.mark.parametrize(
    ("text", "base", "flags"),
    [
        ("IDLE", NodeBase.IDLE, set()),
        ("IDLE+DRAIN", NodeBase.IDLE, {NodeFlag.DRAIN}),
        ("drained*", NodeBase.IDLE, {NodeFlag.DRAIN, NodeFlag.NOT_RESPONDING}),
        ("draining@", NodeBase.ALLOCATED, {NodeFlag.DRAIN, NodeFlag.REBOOT_REQUESTED}),
        ("mix-", NodeBase.MIXED, {NodeFlag.PLANNED}),
        ("idle~", NodeBase.IDLE, {NodeFlag.POWERED_DOWN}),
        ("allocated+", NodeBase.ALLOCATED, {NodeFlag.COMPLETING}),
        ("comp", NodeBase.IDLE, {NodeFlag.COMPLETING}),
        ("down$", NodeBase.DOWN, {NodeFlag.MAINTENANCE}),
        ("maint", NodeBase.IDLE, {NodeFlag.MAINTENANCE}),
        ("inval", NodeBase.DOWN, {NodeFlag.INVALID_REG}),
        ("DOWN+DRAIN+NOT_RESPONDING", NodeBase.DOWN, {NodeFlag.DRAIN, NodeFlag.NOT_RESPONDING}),
        ("IDLE+CLOUD+POWERED_DOWN", NodeBase.IDLE, {NodeFlag.CLOUD, NodeFlag.POWERED_DOWN}),
        ("MIXED+NEW_THING", NodeBase.MIXED, {NodeFlag.UNRECOGNIZED}),
        ("", NodeBase.UNKNOWN, {NodeFlag.UNRECOGNIZED}),
    ],
)
def test_node_states(text, base, flags) -> None:
    assert parse_node_state(text) == NodeState(base, frozenset(flags))


@pytest.mark.parametrize(
    ("text", "usable", "idle"),
    [
        ("idle", True, True),
        ("mixed", True, False),
        ("allocated", True, False),
        ("idle+completing", True, False),
        ("idle~", True, True),
        ("planned", True, True),
        ("drained", False, False),
        ("idle*", False, False),
        ("down", False, False),
        ("maint", False, False),
        ("resv", False, False),
        ("unknown", False, False),
        ("mixed+novel", False, False),
    ],
)  # fmt: skip - a table
def test_which_nodes_take_jobs(text, usable, idle) -> None:
    state = parse_node_state(text)
    assert (state.usable, state.idle) == (usable, idle)


def test_exit_statuses_are_code_and_signal() -> None:
    assert parse_exit("7:0") == (7, 0)
    assert parse_exit("0:9") == (0, 9)
    for text in ("7", "", "a:b"):
        with pytest.raises(ParseError, match="not an exit status"):
            parse_exit(text)


@pytest.mark.parametrize("text", ["", "(null)", "None assigned", "n/a"])
def test_a_job_without_nodes_has_none(text) -> None:
    assert not parse_nodes(text)
