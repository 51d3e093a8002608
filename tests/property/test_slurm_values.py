from __future__ import annotations

import math
import os
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import ParseError, UsageError
from piolet.tools.slurm import jobid, rows, sbatch, scontrol, squeue, times, tres
from piolet.tools.slurm.states import JobState, NodeBase, NodeFlag, NodeState, parse_job_state, parse_node_state

NUMBERS = st.integers(0, 2**31)
TASKS = st.builds(
    lambda first, more, limit: f"{first}-{first + more}{limit}", NUMBERS, NUMBERS, st.sampled_from(["", "%2", ":4"])
)
JOB_IDS = st.one_of(
    st.builds(jobid.JobId, NUMBERS),
    st.builds(lambda job, task: jobid.JobId(job, task=task), NUMBERS, NUMBERS),
    st.builds(
        lambda job, tasks: jobid.JobId(job, tasks=",".join(tasks)), NUMBERS, st.lists(TASKS, min_size=1, max_size=3)
    ),
    st.builds(lambda job, offset: jobid.JobId(job, offset=offset), NUMBERS, st.integers(0, 128)),
)
STEPS = st.sampled_from(["", "batch", "extern", "0", "12", "interactive"])
# What users name their jobs: anything but NUL, in bytes that need not be UTF-8.
NAMES = st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
MIB = 1 << 20


@given(JOB_IDS, STEPS)
def test_job_ids_come_back(job, step) -> None:
    named = jobid.JobId(job.job, job.task, job.tasks, job.offset, step)
    assert jobid.parse(str(named)) == named


@given(st.text(max_size=12))
def test_text_is_a_job_id_that_reads_the_same_or_a_usage_error(text) -> None:
    try:
        parsed = jobid.parse(text)
    except UsageError as error:
        assert error.remedy  # noqa: PT017 - the error is one of two right outcomes
    else:
        assert jobid.parse(str(parsed)) == parsed


@given(st.integers(0, 10**9))
def test_durations_come_back(seconds) -> None:
    assert times.parse_duration_s(times.format_duration(seconds)) == seconds


@given(st.floats(0, 1e8))
def test_a_duration_is_never_written_shorter_than_it_is(seconds) -> None:
    assert 0 <= (times.parse_duration_s(times.format_duration(seconds)) or 0) - seconds < 1.0001


@given(st.integers(1, 2**33))
def test_unix_seconds_and_local_times_mean_the_same_moment(seconds) -> None:
    assert times.parse_timestamp_ns(str(seconds)) == seconds * 10**9
    utc = datetime.fromtimestamp(seconds).astimezone()
    assert times.parse_timestamp_ns(utc.isoformat()) == seconds * 10**9


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/New_York", "UTC"])
def test_local_times_are_those_of_this_process(zone, monkeypatch) -> None:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", zone)
        time.tzset()
        try:
            written = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(1795465297))
            assert times.parse_timestamp_ns(written) == 1795465297 * 10**9
        finally:
            os.environ.pop("TZ", None)
            time.tzset()
    time.tzset()


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_a_parse_error(text) -> None:
    try:
        seconds = times.parse_duration_s(text)
    except ParseError:
        return
    assert seconds is None or seconds >= 0


AMOUNTS = st.dictionaries(
    st.sampled_from(["cpu", "node", "billing", "gres/gpu", "gres/gpu:h100", "gres/nvme", "license/matlab"]),
    st.integers(0, 10**7),
)
MEMORY = st.one_of(st.integers(0, 10**7).map(lambda n: n * MIB), st.integers(0, 10**7).map(lambda n: n * 1024))


@given(AMOUNTS, st.one_of(st.none(), MEMORY))
def test_tres_strings_come_back(amounts, memory) -> None:
    amounts = amounts | ({} if memory is None else {"mem": memory})
    assert tres.parse_tres(tres.format_tres(amounts)) == amounts


@given(AMOUNTS)
def test_gpus_are_counted_once(amounts) -> None:
    expected = amounts["gres/gpu"] if "gres/gpu" in amounts else amounts.get("gres/gpu:h100", 0)
    assert tres.gpus(amounts) == expected


@given(
    st.lists(
        st.builds(
            lambda name, kind, count, indexes: tres.Gres(name, kind, count, tuple(sorted(indexes))),
            st.sampled_from(["gpu", "nvme", "shard"]),
            st.sampled_from(["", "h100", "a100-sxm4", "1g.10gb", "4090d"]),
            st.integers(0, 512),
            st.sets(st.integers(0, 15), max_size=5),
        ),
        max_size=3,
    )
)
def test_gres_come_back(resources) -> None:
    def shown(gres: tres.Gres) -> str:
        note = f"(IDX:{','.join(str(index) for index in gres.indexes)})" if gres.indexes else ""
        return ":".join(part for part in (gres.name, gres.kind, str(gres.count)) if part) + note

    assert list(tres.parse_gres(",".join(shown(gres) for gres in resources))) == resources


@given(st.sampled_from(NodeBase), st.frozensets(st.sampled_from(NodeFlag)))
def test_node_states_come_back(base, flags) -> None:
    assert parse_node_state(str(NodeState(base, flags))) == NodeState(base, flags)


@given(st.text(max_size=12))
def test_a_node_in_a_state_that_nobody_knows_is_not_usable(text) -> None:
    state = parse_node_state(text)
    assert not (state.usable and NodeFlag.UNRECOGNIZED in state.flags)
    assert NodeFlag.UNRECOGNIZED in state.flags or state == parse_node_state(str(state))


@given(st.sampled_from(JobState), st.sampled_from(["", "+", " by 1000"]))
def test_job_states_come_back_with_whatever_follows(state, suffix) -> None:
    assert parse_job_state(f"{state}{suffix}") is state


@given(st.lists(st.tuples(st.sampled_from(["R", "x y"]), NAMES), max_size=4))
def test_rows_come_back_whatever_the_free_text_holds(written) -> None:
    text = "".join(f"1{rows.SEPARATOR}{state}{rows.SEPARATOR}{name}\n" for state, name in written)
    forged = any(line.count(rows.SEPARATOR) >= 2 for _, name in written for line in name.split("\n")[1:])
    read = rows.split(text, 3, "squeue")
    if not forged:
        assert read == [["1", state, name] for state, name in written]
    else:
        assert len(read) > len(written)


@given(NAMES)
def test_no_name_breaks_the_listing_of_a_job(name) -> None:
    fields = ["7", "7", "RUNNING", "u", "p", "2", "node[1-2]", "node1", "1", "2", "3", "1:00", "None"]
    listed = squeue.parse(rows.SEPARATOR.join([*fields, name]) + "\n")
    assert listed[0].state is JobState.RUNNING
    if rows.SEPARATOR not in name:
        assert [job.name for job in listed] == [name]


SHOWN = """JobId=12 JobName={name}
   UserId=alice(1000) GroupId=alice(1000) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   RunTime=00:00:01 TimeLimit=01:00:00 TimeMin=N/A
   SubmitTime=1 StartTime=2 ExitCode=0:0
   NodeList=node[1-2]
   NumNodes=2 NumCPUs=2
   StdOut=/out
   Power=
   

"""  # noqa: W293 - as scontrol writes it


@given(NAMES.filter(lambda name: "\n" not in name and not name.endswith(" ")))
def test_any_name_of_one_line_comes_back_from_scontrol(name) -> None:
    (job,) = scontrol.parse_jobs(SHOWN.format(name=name))
    assert (job.name, job.state, job.user, str(job.nodes)) == (name, JobState.RUNNING, "alice", "node[1-2]")


@given(st.lists(st.text("ab =:/", min_size=1, max_size=8), min_size=2, max_size=4))
def test_a_name_of_several_lines_comes_back_from_scontrol(lines) -> None:
    name = "x" + "\n".join(line.strip() or "y" for line in lines)
    (job,) = scontrol.parse_jobs(SHOWN.format(name=name))
    assert (job.name, job.state) == (name, JobState.RUNNING)


def read_as_sbatch_does(line: str) -> str:
    """One argument of a #SBATCH line: quotes group, a backslash keeps the next character everywhere."""
    argument, quote, position = "", "", 0
    while position < len(line):
        character = line[position]
        if character == "\\":
            position += 1
            argument += line[position]
        elif quote or character in "'\"":
            closes = character == quote
            argument += "" if closes or not quote else character
            quote = "" if closes else quote or character
        else:
            argument += character
        position += 1
    return argument


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=20))
def test_what_a_batch_script_says_is_what_was_asked_for(value) -> None:
    assert read_as_sbatch_does(sbatch.directive(f"--comment={value}")) == f"--comment={value}"


def test_without_a_limit_is_infinity() -> None:
    assert times.parse_duration_s("UNLIMITED") == math.inf == times.parse_duration_s(times.format_duration(math.inf))
