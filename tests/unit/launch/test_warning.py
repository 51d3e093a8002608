"""A program is warned of its time limit, once, and its job goes on in another."""

import os
import signal
from pathlib import Path

import pytest

from piolet.core.errors import UsageError
from piolet.core.run import SystemRunner
from piolet.launch import batch, outcome, warning
from piolet.launch.program import run_step
from piolet.launch.request import RunRequest, check
from piolet.launch.warning import Warned
from piolet.logbook.records import Outcome

ASKED = RunRequest(("x",), signal="USR2@90", chain=2, checkpoint_s=30.0)


@pytest.mark.parametrize(
    ("text", "number", "seconds"),
    [("USR2@300", signal.SIGUSR2, 300), ("60", signal.SIGUSR1, 60), ("SIGTERM@5", signal.SIGTERM, 5)],
)
def test_a_notice_is_read(text, number, seconds):
    assert warning.parse(text) == warning.Notice(number, seconds)


@pytest.mark.parametrize("text", ["KILL@5", "USR1", "USR1@0", "USR1@-1", "NOSUCH@5", "B:USR1@5", "USR1@1.5"])
def test_what_is_no_notice_is_refused(text):
    with pytest.raises(UsageError, match="USR1@300"):
        check(RunRequest(("x",), signal=text))


@pytest.mark.parametrize("early", [True, False])
def test_the_program_gets_the_signal_once_however_early_the_warning_comes(tmp_path, early):
    warned = Warned(warning.parse("USR2@90"))
    script = 'trap "echo told >>$0; exit 0" USR2; touch "$0.ready"; while :; do sleep 0.05; done'
    told = tmp_path / "told"

    def warn(step):
        if early or (tmp_path / "told.ready").exists():
            os.kill(os.getpid(), signal.SIGUSR1)
        if (tmp_path / "told.ready").exists():
            warned.pass_on(step)

    with warned.listening():
        ended = run_step(["sh", "-c", script, str(told)], SystemRunner(), reasons=[warn])

    assert (ended.status, warned.given, told.read_text()) == (0, True, "told\n")


def test_the_script_carries_what_the_next_job_needs():
    script = batch.script(ASKED, plan=None, gpus_per_node=0, output=Path("/o"))

    assert "#SBATCH --signal=B:USR1@90\n" in script
    assert "--signal USR2@90" in script
    assert "--chain 2" in script
    assert "--checkpoint 30" in script
    assert "--attempt 1" in script


@pytest.mark.parametrize(
    ("state", "warned", "more"),
    [("TIMEOUT", False, True), ("COMPLETED", True, True), ("COMPLETED", False, False), ("FAILED", True, False)],
)
def test_only_a_lack_of_time_makes_a_job_go_on(state, warned, more):
    assert outcome.needs_more_time(Outcome(state, 0), warned=warned) is more
