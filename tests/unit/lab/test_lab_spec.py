from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import ParseError, UsageError
from piolet.core.files import write_json
from piolet.lab import Isolation, Lab, Network, Spec, list_labs, open_lab
from piolet.lab.cluster import Place, load

specs = st.builds(
    Spec,
    name=st.from_regex(r"[a-z][a-z0-9-]{0,29}", fullmatch=True),
    nodes=st.integers(1, 250),
    gpus=st.integers(1, 8),
    model=st.sampled_from(["h100", "H100"]),
    network=st.sampled_from(Network),
    accounting=st.booleans(),
    isolation=st.just(Isolation.NONE),
)


@given(specs)
def test_what_can_be_passes_the_check_and_survives_json(spec: Spec) -> None:
    spec.check()
    assert Spec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (Spec(nodes=0), "0 nodes"),
        (Spec(nodes=-1), "-1 nodes"),
        (Spec(nodes=251, network=Network.NETNS), "251 nodes"),
        (Spec(gpus=0), "0 GPUs"),
        (Spec(gpus=9), "9 GPUs"),
        (Spec(model="h1000"), 'no GPU model "h1000"'),
        (Spec(name=""), 'named ""'),
        (Spec(name="../up"), 'named "../up"'),
        (Spec(name="a" * 31), "cannot be named"),
    ],
)
def test_what_cannot_be_is_one_error_with_a_remedy(spec: Spec, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        spec.check()
    assert says in raised.value.what
    assert raised.value.remedy


def test_a_lab_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "mine", Spec("mine", network=Network.NETNS), Place(1, 2, 3, IPv4Network("10.80.1.0/24")))
    lab.save()
    assert open_lab("mine", tmp_path) == lab
    assert list_labs(tmp_path) == (lab,)
    assert (lab.address("node2"), lab.gateway) == ("10.80.1.2", "10.80.1.254")


def test_a_lab_and_a_node_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='no lab "mine"'):
        open_lab("mine", tmp_path)
    lab = Lab(tmp_path / "mine", Spec("mine", nodes=2), Place(1, 2, 3))
    with pytest.raises(UsageError) as raised:
        lab.node_directory("node3")
    assert 'did you mean "node' in raised.value.remedy


def test_a_foreign_record_is_a_parse_error(tmp_path: Path) -> None:
    write_json(tmp_path / "lab.json", {"version": 1})
    with pytest.raises(ParseError, match="not the record of a lab"):
        load(tmp_path)


def test_the_environment_puts_this_piolet_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    lab = Lab(tmp_path / "mine", Spec("mine"), Place(1, 2, 3))
    environment = lab.environment()
    assert set(environment) == {"SLURM_CONF", "PIOLET_SITE_CONFIG", "PATH"}
    own, system = environment["PATH"].split(":")
    assert (Path(own) / "python").exists()
    assert system == "/usr/bin"
    monkeypatch.setenv("PATH", environment["PATH"])
    assert lab.environment() == environment
