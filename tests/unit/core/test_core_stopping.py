"""A process that runs with a block ends with it, whenever the signal comes."""

import os
import signal

import pytest

from piolet.core.run import SystemRunner
from piolet.core.stopping import Stopped, running, stoppable


def test_a_signal_in_the_middle_of_starting_leaves_nothing_running():
    started = []

    def start():
        started.append(SystemRunner().start(["sleep", "60"]))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    with pytest.raises(Stopped), stoppable(), running(start, 5):
        pytest.fail("the block is not entered")

    assert started[0].returncode == -signal.SIGTERM


def test_the_process_ends_with_the_block():
    with running(lambda: SystemRunner().start(["sleep", "60"]), 5) as process:
        assert process.poll() is None
    assert process.returncode == -signal.SIGTERM
