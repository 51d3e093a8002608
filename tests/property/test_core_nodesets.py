from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import ParseError
from piolet.core.nodeset import NodeSet, names

# Names as sites have them: one or two counters, padded or not, with text between and behind.
NAMES = st.builds(
    lambda prefix, one, width, middle, two, suffix: f"{prefix}{one:0{width}d}{middle}{two}{suffix}",
    st.sampled_from(["node", "rack", "n", "gpu-a"]),
    st.integers(0, 130),
    st.sampled_from([1, 3]),
    st.sampled_from(["", "n", "-c"]),
    st.one_of(st.just(""), st.integers(0, 12).map(str)),
    st.sampled_from(["", "-ib", ".example.org"]),
)
SETS = st.lists(NAMES, max_size=12)


@given(SETS)
def test_folding_and_unfolding_keeps_every_name(names) -> None:
    assert set(NodeSet(str(NodeSet(names)))) == set(NodeSet(names)) == set(names)


@given(SETS)
def test_the_fast_way_to_names_is_right(several) -> None:
    assert names(str(NodeSet(several))) == names(",".join(several)) == set(several)


@given(st.text("n0159,-[]. x", max_size=14))
def test_the_fast_way_to_names_reads_any_text_as_the_other_does(text) -> None:
    try:
        wanted = frozenset(NodeSet(text))
    except ParseError:
        with pytest.raises(ParseError):
            names(text)
    else:
        assert names(text) == wanted


@given(SETS)
def test_slurm_can_read_what_is_folded(names) -> None:
    # Slurm 22.05 answers "Invalid hostlist" to text behind the last bracket of a name.
    pieces = re.split(r",(?![^\[]*\])", str(NodeSet(names)))
    assert all(piece.endswith("]") for piece in pieces if "[" in piece)


@given(SETS, st.randoms(use_true_random=False))
def test_equal_sets_read_the_same_and_hash_the_same(names, rnd: random.Random) -> None:
    shuffled = list(names)
    rnd.shuffle(shuffled)
    grown = NodeSet()
    for name in shuffled:
        grown |= NodeSet(name)
    assert grown == NodeSet(names)
    assert hash(grown) == hash(NodeSet(names))
    assert list(grown) == list(NodeSet(names))


@given(SETS, SETS)
def test_the_algebra_is_that_of_sets(left, right) -> None:
    a, b = NodeSet(left), NodeSet(right)
    assert set(a | b) == set(left) | set(right)
    assert set(a & b) == set(left) & set(right)
    assert set(a - b) == set(left) - set(right)
    assert (a <= b) == (set(left) <= set(right))
    assert len(a) == len(set(left))
    assert all((name in a) == (name in set(left)) for name in right)


@given(SETS, st.integers(-2, 15))
def test_the_first_nodes_are_a_prefix_in_order(names, count) -> None:
    nodes = NodeSet(names)
    assert list(nodes.first(count)) == list(nodes)[: max(count, 0)]
