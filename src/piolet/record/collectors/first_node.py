"""How far the node's clock is from that of the job's first node, as the family `clock`, and that node's answers."""

from __future__ import annotations

from piolet.core.errors import PioletError
from piolet.core.files import read_json
from piolet.record import first_node
from piolet.record.collector import Context, Entry, NotApplicable

FILE = "clock.json"
"""In the logbook: where the first node's recorder answers."""


class FirstNodeCollector:
    """On the first node of several it answers; on the others it asks."""

    family = "clock"
    least_interval_s = 10.0

    def __init__(self, context: Context) -> None:
        nodes = _nodes(context)
        if len(nodes) < 2:  # noqa: PLR2004 - one node has nobody to compare with
            raise NotApplicable("the job has one node", where="job.json")
        self._path = context.logbook / FILE
        self._server = first_node.Server(self._path, context.node) if context.node == nodes[0] else None

    def collect(self, time_ns: int) -> list[Entry]:
        """Return one row; none on the first node, or until it is known where that one answers."""
        found = None if self._server else first_node.ask(self._path)
        if found is None:
            return []
        node, offset = found
        row = {"reference": node, "offset_s": offset.offset_s, "uncertainty_s": offset.uncertainty_s}
        return [("clock", {"time_ns": time_ns} | row)]


def _nodes(context: Context) -> list[str]:
    try:
        return [str(held["node"]) for held in read_json(context.logbook / "job.json")["allocation"]]
    except (PioletError, KeyError, TypeError) as error:
        raise NotApplicable("it is not known which nodes the job has", where=str(context.logbook)) from error
