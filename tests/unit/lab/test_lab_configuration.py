from __future__ import annotations

import tomllib
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from piolet.core.config import load as load_configuration
from piolet.lab import Isolation, Lab, Network, Spec
from piolet.lab.cluster import Place
from piolet.lab.files import configuration

PLACE = Place(21000, 21001, 21002)


def _settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("nodes", [1, 4])
def test_nodes_that_share_a_network_differ_by_port(nodes: int) -> None:
    text = configuration(Lab(Path("/labs/mine"), Spec("mine", nodes=nodes), PLACE))["slurm.conf"]
    expected = {
        1: "NodeName=node1 NodeAddr=127.0.0.1 Port=21002 ",
        4: "NodeName=node[1-4] NodeAddr=127.0.0.1 Port=[21002-21005] ",
    }
    assert expected[nodes] in text
    assert "Gres=gpu:h100:4" in text
    assert text.count("NodeName=") == 1


def test_nodes_with_a_network_each_differ_by_address() -> None:
    place = Place(21000, 21001, 21002, IPv4Network("10.99.7.0/24"))
    files = configuration(Lab(Path("/labs/mine"), Spec("mine", nodes=2, network=Network.NETNS), place))
    assert "NodeName=node2 NodeAddr=10.99.7.2 Port=6818 " in files["slurm.conf"]
    assert "SlurmctldHost=localhost(10.99.7.254)" in files["slurm.conf"]
    assert "10.99.7.2 node2\n" in files["hosts"]


@pytest.mark.parametrize(
    ("isolation", "proctrack"), [(Isolation.NONE, "proctrack/linuxproc"), (Isolation.CGROUP, "proctrack/cgroup")]
)
@pytest.mark.parametrize("accounting", [False, True])
def test_every_file_has_a_header_and_whole_lines(isolation: Isolation, proctrack: str, *, accounting: bool) -> None:
    lab = Lab(Path("/labs/mine"), Spec("mine", isolation=isolation, accounting=accounting), PLACE)
    files = configuration(lab)
    for name, text in files.items():
        assert "written by `piolet lab up`" in text, name
        assert text.endswith("\n"), name
    settings = _settings(files["slurm.conf"])
    assert settings["ProctrackType"] == proctrack
    assert settings["ClusterName"] == "mine"
    assert settings["AccountingStorageType"].endswith("slurmdbd" if accounting else "none")
    assert ("slurmdbd.conf" in files) is accounting
    assert ("cgroup.conf" in files) is (isolation is Isolation.CGROUP)


@pytest.mark.parametrize(("gpus", "devices"), [(1, "nvidia0"), (8, "nvidia[0-7]")])
def test_gres_names_a_device_for_each_gpu(gpus: int, devices: str) -> None:
    text = configuration(Lab(Path("/labs/mine"), Spec("mine", gpus=gpus), PLACE))["gres.conf"]
    assert text.endswith(f"Name=gpu Type=h100 File=/labs/mine/dev/{devices}\n")


def test_the_site_configuration_is_one_that_piolet_reads(tmp_path: Path) -> None:
    path = tmp_path / "piolet.toml"
    path.write_text(configuration(Lab(Path("/labs/mine"), Spec("mine"), PLACE))["piolet.toml"])
    settings = load_configuration(environ={"PIOLET_SITE_CONFIG": str(path), "HOME": str(tmp_path)}).settings
    assert (settings.cluster, settings.lab.directory) == ("mine", Path("/labs"))
    assert settings.env.mounts[0] == "/run/piolet-node:/run/piolet-node"
    assert "simulated" in path.read_text()
    assert tomllib.loads(path.read_text())["record"]["kernel_log"] == "/run/piolet-node/kmsg"
