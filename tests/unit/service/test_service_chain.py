"""What attendants and gateways decide, as pure functions: health, hand-over, failures, freshness, events."""

from datetime import date
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import ParseError, UsageError
from piolet.core.run import Result
from piolet.service import check, read
from piolet.service import platform as platforms
from piolet.service.gateway import settings
from piolet.service.gateway.events import Events, Tokens
from piolet.service.gateway.replicas import Replica, Replicas
from piolet.service.slurm import judging, places, queue
from piolet.service.slurm.judging import Health, Next
from piolet.service.slurm.places import Attempt, Endpoint, Place, Wanted
from piolet.tools.slurm import rows

TODAY = date(2027, 1, 15)


def attempt(job, *, generation=1, replica=0, **more):
    return Attempt(job, generation, replica, "node1", "/log", 0, **more)


def endpoint(job, *, generation=1, replica=0, beat=3):
    return Endpoint(job, generation, replica, "node1", 8000, "key", beat, 10)


def decided(health, **seen):
    known = {"elapsed_s": 10, "startup_s": 60, "wanted": True, "heir": None}
    return judging.decided(health, **known | seen)[0]


def probed(answers):
    """The health after probes, each + or -."""
    health = Health()
    for answer in answers:
        health = health.after(answered=answer == "+")
    return health


def test_three_missed_probes_take_a_replica_out_and_six_end_it():
    assert probed("+--").ready
    assert not probed("+---").ready
    assert probed("+---+").ready
    assert decided(probed("+-----")) is Next.SERVE
    assert decided(probed("+------")) is Next.GIVE_UP


def test_a_start_may_take_long_but_not_for_ever():
    assert decided(probed("-" * 20)) is Next.SERVE
    assert decided(probed("-" * 20), elapsed_s=61) is Next.GIVE_UP


def test_a_job_goes_when_it_is_not_wanted_or_another_serves():
    assert decided(probed("+"), wanted=False) is Next.RETIRE
    assert decided(probed("+"), heir=7) is Next.RETIRE


def test_only_a_settled_newer_job_of_the_replica_is_an_heir():
    mine = attempt(5)
    assert judging.heir_of(mine, [endpoint(5), endpoint(4), endpoint(6, replica=1), endpoint(7, beat=2)]) is None
    assert judging.heir_of(mine, [endpoint(7), endpoint(6)]) == 7
    assert judging.heir_of(attempt(9, generation=1), [endpoint(8, generation=2)]) == 8
    assert judging.heir_of(attempt(8, generation=2), [endpoint(9, generation=1)]) is None


def test_failures_count_in_a_row_of_one_generation():
    jobs = [attempt(1), attempt(2, failures=1), attempt(3, generation=2), attempt(4, replica=1)]
    assert judging.failures_before(1, 0, jobs) == 2
    assert judging.failures_before(2, 0, jobs) == 1
    assert judging.failures_before(1, 0, [*jobs, attempt(5, failures=2, ready_ns=1)]) == 0
    assert judging.failures_before(1, 0, []) == 0


def test_a_successor_begins_before_the_time_is_over_but_never_at_once():
    assert judging.begin_minutes(12 * 3600, 30 * 60) == 690
    assert judging.begin_minutes(120, 90) == 1
    assert judging.begin_minutes(float("inf"), 60) == 365 * 24 * 60


def test_words_are_expanded_as_kubernetes_does():
    known = {"PORT": "8000"}
    words = ["--port=$(PORT)", "$$(PORT)", "$(OTHER)", "$PORT", "a$", "$$"]
    assert [judging.expanded(word, known) for word in words] == [
        "--port=8000", "$(PORT)", "$(OTHER)", "$PORT", "a$", "$",
    ]  # fmt: skip


def test_what_is_wanted_ends_with_its_date():
    wanted = Wanted(1, 2, TODAY)
    assert wanted.holds(1, TODAY)
    assert not wanted.holds(2, TODAY)
    assert not wanted.holds(0, date(2027, 1, 16))


def test_a_job_that_waits_says_why_and_when():
    rows_of = [
        ("12", "PENDING", "1800000000", "Resources", "climate/chat/1"),
        ("13", "PENDING", "N/A", "Priority", "climate/chat/0"),
        ("14", "PENDING", "N/A", "Dependency", "climate/chat/0"),
        ("15", "PENDING", "N/A", "Resources", "climate/chat-two/0"),
    ]
    cells = "{0} {0} {1} ada main 1 n/a n/a 1700000000 {2} N/A 1:00:00 {3} {4}"
    answer = "\n".join(rows.SEPARATOR.join(cells.format(*row).split(" ")) for row in rows_of)
    runner = SimpleNamespace(run=lambda *_, **__: Result(("squeue",), 0, answer, "", 0.0))
    assert [str(each) for each in queue.waiting(runner, "climate", "chat")] == [
        "job 13 waits: Priority, Slurm does not say when",
        "job 14 follows",
        "job 12 waits: Resources, 2027-01-15 08:00 UTC",
    ]


def test_records_are_read_as_written_and_foreign_ones_are_none(tmp_path):
    place = Place(tmp_path)
    paths = (place.wanted, place.attempt(4), place.endpoint(4))
    for value, path in zip((Wanted(3, 1, TODAY), attempt(4), endpoint(4)), paths, strict=True):
        places.write(path, value)
        assert places.read(path, type(value)) == value
        assert path.stat().st_mode & 0o777 == 0o640
    place.endpoint(5).write_text('{"job": "5"}')
    assert place.endpoints() == [endpoint(4)]
    with pytest.raises(ParseError):
        places.read(place.endpoint(5), Endpoint)


def test_a_replica_is_fresh_as_long_as_its_beat_goes_on():
    now = [0.0]
    known = Replicas(lambda: now[0])

    def seen(beat):
        known.update({"a/b": [Replica("http://n", "k", 10, beat)]})
        return known.ready("a/b")

    assert seen(1) == 1
    now[0] = 30
    assert seen(1) == 1
    now[0] = 32
    assert seen(1) == 0
    assert seen(2) == 1
    now[0] = 1e9
    known.update({"a/b": [Replica("http://fixed")]})
    now[0] = 2e9
    assert known.ready("a/b") == 1


def test_the_idlest_replica_is_asked_the_suspect_and_the_tried_last():
    known = Replicas(lambda: 0.0)
    known.update({"a/b": [Replica("http://1"), Replica("http://2"), Replica("http://3")]})
    one, two, three = known.services["a/b"].values()
    one.outstanding, two.outstanding, three.outstanding = 2, 1, 3
    assert known.choose("a/b") is two
    known.suspect(two)
    assert known.choose("a/b") is one
    assert known.choose("a/b", [one, three]) is two
    assert known.choose("other/service") is None


STREAM = (
    b'data: {"choices": [{"delta": {"content": "\xc3\xa4"}}], "usage": null}\n\n'
    b": a comment\n\n"
    b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}\r\n\r\n'
    b"data: [DONE]\n\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=6), st.booleans())
def test_a_stream_passes_the_same_however_it_is_cut_into_pieces(cuts, hide):
    places_to_cut = [0, *sorted(cuts), len(STREAM)]
    events = Events(hide_usage=hide)
    passed = b"".join(events.feed(STREAM[start:end]) for start, end in pairwise(places_to_cut))
    hidden = STREAM[STREAM.index(b'data: {"choices": []') : STREAM.index(b"data: [DONE]")]
    assert passed == (STREAM.replace(hidden, b"") if hide else STREAM)
    assert (events.done, events.used(), events.count) == (True, Tokens(3, 4), 3)


def test_a_stream_that_says_done_in_its_text_is_not_done():
    events = Events(hide_usage=True)
    events.feed(b'data: {"choices": [{"delta": {"content": "data: [DONE]"}}]}\n\n')
    assert not events.done
    assert events.used() == Tokens(0, 1)


def test_a_key_is_kept_as_its_digest_and_has_a_plain_name(tmp_path):
    key = settings.new_key()
    text = settings.table("laptop", "climate", key)
    assert key not in text
    (tmp_path / "gateway.toml").write_text(text)
    gateway = settings.read(tmp_path / "gateway.toml")
    assert settings.owner(gateway, key, TODAY) == "laptop"
    assert settings.owner(gateway, key + "x", TODAY) is None
    with pytest.raises(UsageError, match="is not a name"):
        settings.table("My laptop", "climate", key)


def test_the_files_of_the_example_are_right(platform):
    example = Path(__file__).parents[3] / "examples/05-model-on-slurm"
    assert check(read(example), platforms.without_kubernetes("climate"), TODAY) == []
    assert [each.policy for each in check(read(example), platform, TODAY)] == ["lease"]  # where operators ask for one
    assert list(settings.read(example / "gateway.toml").services) == ["climate/chat"]
