"""Submitting a job once more: elsewhere, if its nodes have failed it, or to go on, if its time was too short.

Nothing that a user's program or request did is ever tried again, and there is a cap on what is.
"""

from __future__ import annotations

from dataclasses import replace

from piolet.core.errors import PioletError
from piolet.core.nodeset import NodeSet
from piolet.launch import outcome as outcomes
from piolet.launch.session import Session
from piolet.launch.telling import say
from piolet.logbook import records


def tried_again(session: Session, outcome: records.Outcome) -> records.Outcome:
    """Submit the job again without its bad nodes, if they are why it failed and it may; say so, and note it."""
    refused, began = [each.node for each in session.job.refused], session.job.program_started_ns is not None
    bad = outcomes.bad_nodes(outcome, refused, began=began)
    outcome = replace(outcome, bad_nodes=bad)
    if not session.request.attempt:
        return outcome
    if not bad:
        return _gone_on(session, outcome)
    if not session.request.restarts:
        say(f"not submitted again: attempt {session.request.attempt} was the last that --restarts allows")
        return outcome
    return _submitted_again(session, outcome, NodeSet(bad))


def _gone_on(session: Session, outcome: records.Outcome) -> records.Outcome:
    """Submit the job again if its time was too short for the program: the next one of its chain."""
    warned = session.warned is not None and session.warned.given
    if not outcomes.needs_more_time(outcome, warned=warned) or not session.request.chain:
        return outcome
    return _submitted_again(session, outcome, NodeSet())


def _submitted_again(session: Session, outcome: records.Outcome, bad: NodeSet) -> records.Outcome:
    try:
        job = session.machine.submit_again(session.request, bad)
    except PioletError as error:
        say(f"could not be submitted again: {error}")
        return outcome
    say(f"submitted again as job {job}, without {bad}" if bad else f"goes on as job {job}")
    return replace(outcome, next_job=job)
