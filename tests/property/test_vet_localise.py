"""Nodes are named for what they do to others, and never for what others do; whoever is not sure names nobody."""

from hypothesis import given
from hypothesis import strategies as st

from piolet.core.nodeset import NodeSet
from piolet.vet.localise import locate

SIZES = st.integers(min_value=3, max_value=40)


class Fabric:
    """Nodes of which some are bad, and links between two that are."""

    def __init__(self, size, bad=(), links=()):
        self.nodes = NodeSet(f"n[1-{size}]")
        self.bad = NodeSet(f"n{each}" for each in bad)
        self.links = [NodeSet(f"n{each}" for each in link) for link in links]
        self.rounds = 0

    def measure(self, groups):
        self.rounds += 1
        assert all(len(group) > 1 for group in groups)
        assert sum(map(len, groups)) == len(NodeSet(node for group in groups for node in group)), "groups are disjoint"
        return [not group & self.bad and not any(link <= group for link in self.links) for group in groups]


@st.composite
def with_bad_nodes(draw):
    size = draw(SIZES)
    bad = draw(st.sets(st.integers(1, size), min_size=1, max_size=max(1, size // 4)))
    return Fabric(size, bad)


@given(with_bad_nodes())
def test_bad_nodes_are_named_and_no_other(fabric):
    located = locate(fabric.nodes, fabric.measure)

    assert NodeSet(each.node for each in located.named) == fabric.bad
    assert located.good == fabric.nodes - fabric.bad
    assert not located.unsure
    assert all(each.confidence >= 0.75 for each in located.named)
    assert fabric.rounds < 30


@given(SIZES, st.data())
def test_however_many_are_bad_no_good_node_is_named_and_no_bad_one_is_good(size, data):
    fabric = Fabric(size, data.draw(st.sets(st.integers(1, size), min_size=1)))
    located = locate(fabric.nodes, fabric.measure)

    assert NodeSet(each.node for each in located.named) <= fabric.bad
    assert not located.good & fabric.bad
    named = NodeSet(each.node for each in located.named)
    assert named | located.good | located.unsure == fabric.nodes
    assert located.why or not located.unsure


@given(SIZES, st.data())
def test_a_bad_link_names_neither_of_its_ends(size, data):
    ends = data.draw(st.lists(st.integers(1, size), min_size=2, max_size=2, unique=True))
    fabric = Fabric(size, links=[ends])
    located = locate(fabric.nodes, fabric.measure)

    assert located.named == ()
    assert located.unsure
    assert not fabric.links[0] <= located.good
    assert located.why


@given(SIZES, st.randoms(use_true_random=False), st.floats(0, 1))
def test_whatever_is_measured_it_ends_and_everybody_is_in_one_place(size, chance, share):
    rounds = []

    def measure(groups):
        rounds.append(groups)
        return [chance.random() < share for _ in groups]

    nodes = NodeSet(f"n[1-{size}]")
    located = locate(nodes, measure)

    named = NodeSet(each.node for each in located.named)
    assert len(named) + len(located.good) + len(located.unsure) == size
    assert named | located.good | located.unsure == nodes
    assert all(each.bad == each.pairings for each in located.named)
    assert len(rounds) < 200


def test_of_two_nodes_nobody_can_tell():
    fabric = Fabric(2, [1])
    located = locate(fabric.nodes, fabric.measure)

    assert (located.named, located.unsure, fabric.rounds) == ((), fabric.nodes, 0)
    assert "too few" in located.why
