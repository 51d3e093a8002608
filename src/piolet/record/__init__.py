"""Recording what the GPUs and the host do while a program runs, without touching the program.

    inventory(environ)       the GPUs of this node that belong to the job
    agent_argv(logbook)      the command line of an agent, for a step with one task a node
    metrics_name(logbook)    what programs need in $PIOLET_METRICS, so that `piolet.log` finds their node's agent

All are cheap to import; an agent in the foreground is `piolet.record.agent.run_agent`, a program recorded
`piolet.record.program.record_program`.
"""

from __future__ import annotations

from piolet.record.agent import agent_argv
from piolet.record.devices import inventory
from piolet.record.spec import metrics_name

__all__ = ["agent_argv", "inventory", "metrics_name"]
