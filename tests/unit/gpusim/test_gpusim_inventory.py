"""What a simulated GPU says it is."""

import pytest

from piolet.core.errors import UsageError
from piolet.lab import gpus
from piolet.tools.nvml import is_simulated


def test_every_reader_can_tell_that_it_is_simulated(node):
    driver, nvml, count = node.ask((0, "driver"), (0, "nvml"), (0, "count"))
    assert driver == gpus.DRIVER_VERSION
    assert is_simulated(driver)
    assert "-sim" in nvml
    assert not is_simulated(driver.removesuffix("-sim"))
    assert count == 2
    assert all(gpu.simulated for gpu in node.gpus)


@pytest.mark.parametrize("model", ["h100", "gh200", "a100"])
def test_answers_are_the_models(make_node, model):
    node, kind = make_node(model), gpus.models()[model]
    name, memory, limit, clock, links, capability, architecture = node.ask(
        (0, "GetName", "gpu:1"),
        (0, "GetMemoryInfo", "gpu:1"),
        (0, "GetEnforcedPowerLimit", "gpu:1"),
        (0, "GetMaxClockInfo", "gpu:1", 1),
        (0, "fields", "gpu:1", 91),
        (0, "GetCudaComputeCapability", "gpu:1"),
        (0, "GetArchitecture", "gpu:1"),
    )
    assert name == kind.name == node.gpus[1].model
    assert memory["total"] == kind.memory_bytes == node.gpus[1].memory_bytes
    assert limit == kind.numbers["power_limit_w"] * 1000
    assert clock == kind.numbers["sm_max_mhz"]
    assert links == [kind.nvlinks]
    assert ".".join(map(str, capability)) == kind.numbers["compute_capability"]
    assert architecture == kind.numbers["architecture"]


def test_a_device_is_found_by_each_of_its_names(node):
    uuid, serial, pci = node.ask((0, "GetUUID", "gpu:1"), (0, "GetSerial", "gpu:1"), (0, "GetPciInfo", "gpu:1"))
    assert uuid == node.gpus[1].uuid
    assert pci["busId"] == "00000000:43:00.0"
    assert pci["busIdLegacy"] == "0000:43:00.0"
    assert node.ask(
        (0, "by_uuid", uuid), (0, "by_serial", serial), (0, "by_bus", "0000:43:00.0"), (0, "by_bus", pci["busId"])
    ) == [1, 1, 1, 1]
    unknown = node.ask((0, "by_uuid", "GPU-none"), (0, "by_serial", "0"), (0, "GetHandleByIndex", 2))
    assert [answer["error"] for answer in unknown] == [6, 6, 2]


def test_fixed_modes_and_numbers(node):
    answers = node.ask(
        *(
            (0, call, "gpu:1")
            for call in (
                "GetIndex", "GetMinorNumber", "GetBrand", "GetPersistenceMode", "GetComputeMode", "GetEccMode",
                "GetMigMode", "GetPerformanceState", "GetCurrPcieLinkGeneration", "GetMaxPcieLinkGeneration",
                "GetCurrPcieLinkWidth", "GetMaxPcieLinkWidth", "GetPcieSpeed", "GetPcieReplayCounter",
            )
        )
    )  # fmt: skip
    assert answers == [1, 1, 14, 1, 0, [1, 1], [0, 0], 0, 5, 5, 16, 16, 32000, 0]


def test_links_of_gh200_go_to_its_peers_in_equal_groups(make_node):
    node = make_node("gh200", 4)
    partners = node.ask(*((0, "GetNvLinkRemotePciInfo", "gpu:1", link) for link in range(18)))
    assert [partner["domain"] for partner in partners] == [0x09] * 6 + [0x29] * 6 + [0x39] * 6
    assert node.ask((0, "GetNvLinkRemoteDeviceType", "gpu:1", 0)) == [0]


def test_links_of_h100_go_to_switches(node):
    kind, version, beyond = node.ask(
        (0, "GetNvLinkRemoteDeviceType", "gpu:0", 17),
        (0, "GetNvLinkVersion", "gpu:0", 0),
        (0, "GetNvLinkState", "gpu:0", 18),
    )
    assert (kind, version, beyond) == (2, 6, {"error": 2})


def test_thresholds_are_ordered(node):
    shutdown, slowdown, _memory, most = (node.one(0, "GetTemperatureThreshold", "gpu:0", i) for i in range(4))
    assert most < slowdown < shutdown
    assert node.one(0, "GetTemperatureThreshold", "gpu:0", 5) == {"error": 3}


def test_identity_follows_from_the_node_and_differs_between_gpus(tmp_path):
    first = gpus.write_inventory(tmp_path / "a", node="node1", count=4)
    again = gpus.write_inventory(tmp_path / "b", node="node1", count=4, model="a100")
    other = gpus.write_inventory(tmp_path / "c", node="node2", count=4)
    assert [gpu.uuid for gpu in first] == [gpu.uuid for gpu in again]
    assert len({gpu.uuid for gpu in first + other}) == 8


def test_any_user_may_append_and_read(tmp_path):
    gpus.write_inventory(tmp_path / "gpu", node="node1", count=1)
    assert (tmp_path / "gpu" / "gpu0.log").stat().st_mode & 0o777 == 0o666
    assert (tmp_path / "gpu" / "inventory").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "gpu").stat().st_mode & 0o755 == 0o755


def test_no_driver_without_an_inventory(node):
    (node.directory / "inventory").unlink()
    with pytest.raises(Exception, match="Driver Not Loaded"):
        node.one(0, "count")


@pytest.mark.parametrize(("count", "model"), [(0, "h100"), (9, "h100"), (5, "gh200"), (1, "h1000")])
def test_what_cannot_be_built_is_refused(tmp_path, count, model):
    with pytest.raises(UsageError) as refused:
        gpus.write_inventory(tmp_path, node="node1", count=count, model=model)
    assert refused.value.remedy
    assert not list(tmp_path.iterdir())
