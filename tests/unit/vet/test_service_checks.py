"""Variables, names and connections: what programs need of a node beside its hardware."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.nouns import Status
from piolet.vet.check import Context
from piolet.vet.checks import dns, environment, internet

NOWHERE = Context({})
TOO_LONG = "x" * 70  # a label has at most 63 letters, so no name server is asked


@pytest.mark.parametrize(
    ("environ", "expected", "status", "reason"),
    [
        ({"A": "1"}, {"A": "1"}, Status.PASS, "every variable is as expected"),
        ({"A": "1"}, {"A": None}, Status.PASS, "every variable is as expected"),
        ({"A": ""}, {"A": None}, Status.PASS, "every variable is as expected"),
        ({}, {"A": None}, Status.FAIL, "A is not set"),
        ({"B": "2"}, {"A": "1", "B": "3"}, Status.FAIL, "A is not set; B is '2' instead of '3'"),
        ({"A": ""}, {"A": "1"}, Status.FAIL, "A is '' instead of '1'"),
    ],
)
def test_environment(environ, expected, status, reason):
    parameters = environment.Parameters(expected)

    judgement = environment.judge(environment.observe(parameters, Context(environ)), parameters)

    assert (judgement.status, judgement.reason) == (status, reason)


@given(
    st.dictionaries(st.sampled_from("ABC"), st.sampled_from(["1", "2"])),
    st.dictionaries(st.sampled_from("ABC"), st.sampled_from(["1", "2", None]), min_size=1),
)
def test_environment_passes_exactly_if_all_is_as_expected(environ, expected):
    parameters = environment.Parameters(expected)

    judgement = environment.judge(environment.observe(parameters, Context(environ)), parameters)

    good = all(name in environ and value in (None, environ[name]) for name, value in expected.items())
    assert judgement.status is (Status.PASS if good else Status.FAIL)
    assert 0 <= judgement.value <= judgement.threshold


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def reached(port, answer_s=2.0, host="127.0.0.1"):
    parameters = internet.Parameters(host, port, answer_s)
    return internet.judge(internet.observe(parameters, NOWHERE), parameters)


def test_a_host_that_listens_is_reached(listener):
    assert reached(listener).status is Status.PASS


def test_a_closed_port_fails_with_the_reason():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    judgement = reached(port)

    assert (judgement.status, judgement.reason) == (Status.FAIL, f"127.0.0.1:{port}: Connection refused")


def test_a_host_that_is_silent_fails_in_time():
    """A full queue of connections makes the kernel drop the next one, as a firewall would."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)  # noqa: FBT003 - the interface of sockets
            each.connect_ex(("127.0.0.1", port))

        judgement = reached(port, answer_s=0.3)

        for each in waiting:
            each.close()
    assert judgement.status is Status.FAIL
    assert "no answer within 0.3 s" in judgement.reason


def resolved(*names, answer_s=2.0):
    parameters = dns.Parameters(names, answer_s)
    return dns.judge(dns.observe(parameters, NOWHERE), parameters)


def test_names_are_resolved_or_named():
    assert resolved("localhost", "127.0.0.1").status is Status.PASS
    judgement = resolved("localhost", TOO_LONG)
    assert judgement.status is Status.FAIL
    assert judgement.reason.startswith(f"{TOO_LONG}: ")
    assert (judgement.value, judgement.threshold) == (1, 2)


def test_a_resolver_that_is_too_slow_fails():
    judgement = resolved("localhost", answer_s=0.000001)

    assert (judgement.status, judgement.reason) == (Status.FAIL, "localhost: no answer within 1e-06 s")


@given(st.lists(st.sampled_from("abcd"), min_size=1, unique=True), st.sets(st.sampled_from("abcd")), st.booleans())
def test_each_name_must_be_resolved(names, good, extra):
    observation = [dns.Name(name, "" if name in good else "Name or service not known") for name in names]
    if extra:
        observation = [dns.Name("other"), *observation[1:]]

    judgement = dns.judge(tuple(observation), dns.Parameters(tuple(names)))

    assert judgement.status is (Status.PASS if set(names) <= good and not extra else Status.FAIL)
    assert 0 <= judgement.value <= judgement.threshold
