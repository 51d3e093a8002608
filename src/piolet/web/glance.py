"""What a job's page says at once, whatever the job's size: how saturated it is, when, and where it is not.

A large job is shown as groups of nodes: the racks that the site's policy names, else nodes that follow one another.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Interval
from piolet.logbook.reader import rereading
from piolet.score import drawing
from piolet.score.model import Factors, GpuScore, factorise, mean_saturation
from piolet.score.overview import NodeStory, Role, node_stories
from piolet.score.timeline import HeatRow
from piolet.watch import Book, Metric, Split
from piolet.watch.series import SECOND_NS
from piolet.web import digest
from piolet.web.digest import Digest

MOST_ROWS = 64
"""Rows of a heat map, and nodes of a group: a job of more GPUs is shown by node, one of more nodes by group."""

MOST_KEPT_CELLS = 2 * digest.MOST_CELLS
MOST_DIGESTS = 32
"""Each is a database of its own, of some megabytes when it is empty."""

_HEAT_PX = 640


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node in the table of nodes: its story, and of its GPUs the mean and the lowest saturation, power and heat."""

    story: NodeStory
    saturation: float | None
    lowest: float | None
    power_w: float | None
    hottest_c: float | None
    throttled_s: float

    @property
    def plain(self) -> bool:
        """Whether there is nothing to tell of it: it was used, every check passed, nothing held its GPUs back."""
        return self.story.role is Role.USED and not self.story.not_passed and not self.throttled_s


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that are shown as one: `key`, the first of them, names the group in addresses."""

    name: str
    nodes: tuple[str, ...]

    @property
    def key(self) -> str:
        """The first node."""
        return self.nodes[0]


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group in the table of groups: the mean saturation, its lowest node, power and heat, what there is to tell."""

    group: Group
    saturation: float | None
    lowest: NodeRow
    power_w: float | None
    hottest_c: float | None
    throttled: int
    to_tell: int


@dataclass(frozen=True, slots=True)
class Heat:
    """Two heat maps with a pixel a cell, of the rows' means and of their lowest lines; their rows' names and targets.

    A target follows the job's address. Without rows of many lines there is no second picture.
    """

    image: str
    lowest: str
    names: tuple[str, ...]
    targets: tuple[str, ...]
    height_px: int
    length_s: float


@dataclass(frozen=True, slots=True)
class Glance:
    """See the module. `interval` is None while nothing was recorded."""

    interval: Interval | None
    score: float | None
    factors: Factors | None
    coverage_ratio: float | None
    gpus: tuple[GpuScore, ...]
    nodes: tuple[NodeRow, ...]
    groups: tuple[GroupRow, ...]
    heat: Heat | None
    metrics: tuple[Metric, ...]


class Glances:
    """The digests of the jobs that were looked at last, and glances at them; safe to use from several threads.

    `racks` gives the site's racks with their nodes.
    """

    def __init__(self, racks: Callable[[], Mapping[str, str]]) -> None:
        self._racks = racks
        self._digests: OrderedDict[tuple[str, str], Digest] = OrderedDict()
        self._lock = Lock()

    def glance(self, book: Book) -> Glance:
        """Return a job at a glance, as it is now."""
        found, job = self.digest(book), book.job
        gpus = found.gpu_scores() if found else ()
        nodes = node_rows(node_stories(job, book.checks()), gpus)
        totals = [gpu.totals for gpu in gpus if gpu.totals]
        groups = self.groups(book)
        return Glance(
            interval=found.interval if found else None,
            score=mean_saturation(totals),
            factors=factorise(totals),
            coverage_ratio=statistics.fmean(gpu.coverage_ratio for gpu in gpus) if gpus else None,
            gpus=gpus,
            nodes=nodes,
            groups=tuple(group_rows(groups, nodes)),
            heat=heat(found, groups) if found else None,
            metrics=found.metrics() if found else (),
        )

    def groups(self, book: Book) -> tuple[Group, ...]:
        """Return the groups of a job's nodes; none if they are few."""
        used = [held.node for held in book.job.allocation if held.used]
        return tuple(grouped(used, self._racks())) if len(used) > MOST_ROWS else ()

    @rereading
    def digest(self, book: Book) -> Digest | None:
        """Return the digest of a job as it is now; None while no GPU has a sample."""
        key = book.grant.job.cluster, book.grant.job.job_id
        with self._lock:
            found = self._digests.pop(key, None)
            if found is None or found.job != book.job:
                found = Digest.begun(book.logbook, book.grant.job.owner, book.job)
            if found is None:
                return None
            self._digests[key] = found
            self._forget()
        found.refresh(book.logbook, book.grant.job.owner)
        return found

    def _forget(self) -> None:
        """Forget digests that were not looked at for longest, until they are few and small enough."""
        while len(self._digests) > 1:
            cells = sum(each.cells for each in self._digests.values())
            if cells <= MOST_KEPT_CELLS and len(self._digests) <= MOST_DIGESTS:
                return
            self._digests.popitem(last=False)


def grouped(nodes: Sequence[str], racks: Mapping[str, str]) -> Iterator[Group]:
    """Yield the groups of nodes, each of at most MOST_ROWS: racks first, then those that no rack names, in order."""
    rest = dict.fromkeys(nodes)
    for rack, names in sorted(racks.items()):
        inside = [name for name in NodeSet(names) if name in rest]
        for name in inside:
            del rest[name]
        yield from _runs(inside, rack)
    yield from _runs(list(rest), "")


def _runs(nodes: Sequence[str], rack: str) -> Iterator[Group]:
    for first in range(0, len(nodes), MOST_ROWS):
        run = tuple(nodes[first : first + MOST_ROWS])
        span = run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}"
        whole = rack and len(nodes) <= MOST_ROWS
        yield Group(rack if whole else f"{rack}: {span}" if rack else span, run)


def node_rows(stories: Sequence[NodeStory], scores: Sequence[GpuScore]) -> tuple[NodeRow, ...]:
    """Return the table of nodes: those of which there is something to tell first, then the least saturated."""
    gpus: dict[str, list[GpuScore]] = {}
    for gpu in scores:
        gpus.setdefault(gpu.node, []).append(gpu)
    rows = [_node_row(story, gpus.get(story.node, [])) for story in stories]
    return tuple(sorted(rows, key=lambda row: (row.plain, _saturation(row))))


def _node_row(story: NodeStory, gpus: Sequence[GpuScore]) -> NodeRow:
    scores = [gpu.score for gpu in gpus if gpu.score is not None]
    watts = [gpu.power_w for gpu in gpus if gpu.power_w is not None]
    return NodeRow(
        story,
        statistics.fmean(scores) if scores else None,
        min(scores, default=None),
        sum(watts) if watts else None,
        max((gpu.temperature_c for gpu in gpus if gpu.temperature_c is not None), default=None),
        max((gpu.throttled_s for gpu in gpus), default=0.0),
    )


def _saturation(row: NodeRow) -> float:
    return 1.0 if row.saturation is None else row.saturation


def group_rows(groups: Sequence[Group], nodes: Sequence[NodeRow]) -> Iterator[GroupRow]:
    """Yield the table of groups, in their order."""
    rows = {row.story.node: row for row in nodes}
    for group in groups:
        inside = [rows[node] for node in group.nodes if node in rows]
        scores = [row.saturation for row in inside if row.saturation is not None]
        watts = [row.power_w for row in inside if row.power_w is not None]
        yield GroupRow(
            group,
            statistics.fmean(scores) if scores else None,
            min(inside, key=_saturation),
            sum(watts) if watts else None,
            max((row.hottest_c for row in inside if row.hottest_c is not None), default=None),
            sum(row.throttled_s > 0 for row in inside),
            sum(not row.plain for row in inside),
        )


def heat(found: Digest, groups: Sequence[Group]) -> Heat | None:
    """Draw a job: a row a GPU, a node or a group, whichever are few enough; None while no GPU is scored."""
    nodes = list(dict.fromkeys(node for node, _ in found.gpus))
    if groups:
        rows = [(node, group.name) for group in groups for node in group.nodes]
        return _heat(found, rows, Split.NODE, [f"/nodes?group={group.key}" for group in groups])
    if len(found.gpus) > MOST_ROWS:
        return heat_of_nodes(found, nodes)
    rows = [(f"{node}:{gpu.index}", f"{node}:{gpu.index}") for node, gpu in found.gpus]
    return _heat(found, rows, Split.DEVICE, [f"/nodes/{node}" for node, _ in found.gpus])


def heat_of_nodes(found: Digest, nodes: Sequence[str]) -> Heat | None:
    """Draw some nodes, a row each."""
    return _heat(found, [(node, node) for node in nodes], Split.NODE, [f"/nodes/{node}" for node in nodes])


def _heat(found: Digest, rows: Sequence[tuple[str, str]], split: Split, targets: Sequence[str]) -> Heat | None:
    cells = found.saturation(rows, split)
    if not any(map(any, cells.values())):
        return None
    many = len(cells) < len(rows)
    return Heat(
        image=_image(cells),
        lowest=_image(found.saturation(rows, split, lowest=True)) if many else "",
        names=tuple(cells),
        targets=tuple(targets),
        height_px=max(3, min(16, _HEAT_PX // len(cells))) * len(cells),
        length_s=len(next(iter(cells.values()))) * found.width_ns / SECOND_NS,
    )


def _image(cells: Mapping[str, list[float | None]]) -> str:
    return drawing.heat_image([HeatRow("", name, tuple(row)) for name, row in cells.items()])
