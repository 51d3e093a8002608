"""All problems at once; addresses to listen on."""

import socket

import pytest

from piolet.core.errors import ConfigError, PioletError, UsageError
from piolet.core.problems import kept, raise_all
from piolet.core.sockets import bound, free_port, is_loopback


def test_one_problem_is_raised_as_it_is_and_several_together():
    problems = []
    raise_all(problems, "x.toml")
    for number in range(2):
        with kept(problems):
            raise ConfigError(f"wrong {number}", path="x.toml")
    with pytest.raises(ConfigError, match="wrong 0"):
        raise_all(problems[:1], "x.toml")
    with pytest.raises(UsageError, match=r"2 problems in x.toml\n(.|\n)*wrong 0(.|\n)*wrong 1"):
        raise_all(problems, "x.toml")


def test_an_address_that_is_taken_is_one_error():
    with bound("127.0.0.1", 0) as taken, pytest.raises(PioletError, match=r"cannot listen on 127.0.0.1"):
        bound("127.0.0.1", taken.getsockname()[1])
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_which_addresses_only_this_machine_reaches():
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "10.0.0.1", "node1")] == [
        True, True, True, False, False,
    ]  # fmt: skip
