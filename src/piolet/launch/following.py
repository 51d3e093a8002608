"""Following a job from the login node: its states, its output as it comes, and its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import PioletError, Refused
from piolet.core.run import Runner
from piolet.core.stopping import Stopped, undisturbed
from piolet.launch import outcome as outcomes
from piolet.launch.telling import say, told
from piolet.logbook import records
from piolet.logbook.layout import Logbook
from piolet.tools.slurm import jobs, scancel
from piolet.tools.slurm.errors import UnknownJob
from piolet.tools.slurm.job import Job
from piolet.tools.slurm.states import JobState

POLL_S = 0.3
STATE_EVERY = 3
"""The output is read at every poll, the controller is asked at every third."""

PATIENCE_S = 300.0
"""A controller that stays silent for so long is given up; the job itself goes on."""

CANCEL_WAIT_S = 60.0
"""How long a cancelled job may take to end before we say so and leave."""


@dataclass(slots=True)
class Follower:
    """A submitted job and where it writes: `root`/<jobid>.log and the logbook `root`/<jobid>/."""

    runner: Runner
    job_id: int
    root: Path
    max_wait_s: float | None = None
    """Seconds that the job may wait in the queue; one that does it again waits as long as it must."""

    def refuse_old_traces(self) -> None:
        """Cancel the job if an older one of the same number left its files here: a cluster that counts anew.

        Raises:
            Refused: it did.
        """
        old = [path for path in (self._logbook.job, self._output) if path.exists()]
        if not old:
            return
        scancel.cancel(self.runner, self.job_id)
        raise Refused(
            f"an older job {self.job_id} of a cluster with this name left its logbook here; the new job is cancelled",
            where=str(old[0].parent),
            remedy="move the old logbooks away, or set PIOLET_ROOT or the cluster's name to something else",
        )

    def detach(self) -> int:
        """Say how to come back to the job."""
        say(f"job {self.job_id} goes on by itself; its output is {self._output}, its logbook {self._logbook.path}")
        sys.stdout.write(f"{self.job_id}\n")
        return 0

    def follow(self) -> int:
        """Show the job, and those that do it again, to the end; return the last exit status. On Ctrl-C cancel it."""
        try:
            status = self._exit_status(self._watch())
            outcome = records.read_outcome(self._logbook.outcome)
        except Stopped as stop:
            with suppress(Stopped), undisturbed():
                self._cancel()
            return 128 + stop.signal_number
        if not outcome or not outcome.next_job:
            return status
        say(f"following job {outcome.next_job}, which tries again")
        return Follower(self.runner, int(outcome.next_job), self.root).follow()

    @property
    def _output(self) -> Path:
        return self.root / f"{self.job_id}.log"

    @property
    def _logbook(self) -> Logbook:
        return Logbook(self.root / str(self.job_id))

    def _watch(self) -> Job | None:
        """Show states and output until the job is over; None if Slurm has forgotten it."""
        output = _Tail(self._output)
        shown = ""
        began_s = time.monotonic()
        for job in self._states():
            if job is not None and self._waited_too_long(job, time.monotonic() - began_s):
                say(f"job {self.job_id} has not begun within {self.max_wait_s:g} s")
                self._cancel()
                return self._find()
            over = job is not None and job.state.finished and self._logbook.outcome.exists()
            text = "" if job is None or over else _shown(job)  # the run has told its end itself
            if text and text != shown:
                say(f"job {self.job_id} {text}")
                shown = text
            output.show()
            if job is None or job.state.finished:
                output.show()
                return job
        return None

    def _waited_too_long(self, job: Job, waited_s: float) -> bool:
        return self.max_wait_s is not None and job.state is JobState.PENDING and waited_s > self.max_wait_s

    def _states(self) -> Iterator[Job | None]:
        """Yield the job as Slurm tells it, again and again; the last answer stands between questions."""
        job = self._ask()
        while True:
            for _ in range(STATE_EVERY):
                yield job
                time.sleep(POLL_S)
            job = self._ask()

    def _ask(self) -> Job | None:
        """Ask Slurm, sitting out a controller that is away for a while."""
        give_up = time.monotonic() + PATIENCE_S
        told = False
        while True:
            try:
                return self._find()
            except PioletError as error:
                if time.monotonic() > give_up:
                    raise
                if not told:
                    say(f"Slurm does not answer, still watching job {self.job_id}: {error.what}")
                    told = True
                time.sleep(POLL_S * STATE_EVERY)

    def _find(self) -> Job | None:
        try:
            return jobs.find(self.runner, self.job_id)
        except UnknownJob:
            return None

    def _exit_status(self, job: Job | None) -> int:
        """Return the program's exit status: from the logbook, else from Slurm."""
        outcome = records.read_outcome(self._logbook.outcome)
        if outcome:
            return outcome.exit_status
        say(f"job {self.job_id} left no outcome; {_shown(job) if job else 'Slurm has forgotten it'}")
        say(f"next: see what it said in {self._output}; if that is not there, the nodes could not write it")
        if job is None:
            return PioletError.exit_status
        return self._close(job).exit_status

    def _close(self, job: Job) -> records.Outcome:
        """Write down what Slurm says of the end of a job that could not do so itself."""
        outcome = outcomes.of_job(job, time.time_ns())
        with told("outcome.json"):
            records.write_outcome(self._logbook.outcome, outcome)
        return outcome

    def _cancel(self) -> None:
        """Cancel the job and stay until it is gone, so that nothing is left behind."""
        say(f"cancelling job {self.job_id}")
        scancel.cancel(self.runner, self.job_id)
        deadline = time.monotonic() + CANCEL_WAIT_S
        while time.monotonic() < deadline:
            job = self._find()
            if job is None or job.state.finished:
                say(f"job {self.job_id} is cancelled")
                if job and not self._logbook.outcome.exists():
                    self._close(job)
                return
            time.sleep(POLL_S)
        say(f"job {self.job_id} is still ending; look again with: squeue -j {self.job_id}")


class _Tail:
    """Copies what is new in a file to stdout, byte for byte; a file that is not there yet is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._complained = False

    def show(self) -> None:
        """Show what is new; what goes wrong with that is told once, and does not end the following."""
        try:
            self._copy()
        except FileNotFoundError:
            pass
        except OSError as error:
            if not self._complained:
                say(f"cannot show the job's output, still following the job: {error}")
                self._complained = True

    def _copy(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while chunk := file.read(1 << 16):
                self._offset += len(chunk)
                sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def _shown(job: Job) -> str:
    """Return a job's state for people: PENDING with its reason, RUNNING with its nodes."""
    if job.nodes:
        return f"{job.state} on {job.nodes}"
    return f"{job.state} ({job.reason})" if job.reason else str(job.state)
