"""Links, clocks, throttling and PCIe: judgements by themselves, and faults of simulated GPUs seen through NVML."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.nouns import Status
from piolet.lab import gpus as lab_gpus
from piolet.vet.checks import gpu_clocks, gpu_ecc, gpu_nvlink, gpu_throttle, pcie
from piolet.vet.checks.gpu_clocks import Clocks
from piolet.vet.checks.gpu_ecc import Ecc
from piolet.vet.checks.gpu_nvlink import Errors, Links
from piolet.vet.checks.pcie import Link
from piolet.vet.gpus import Gpus, Reading


def seen(*values, lost=()):
    readings = [Reading(f"GPU {i}", f"0:{i}:0", value=value) for i, value in enumerate(values)]
    readings += [Reading(f"GPU {i}", "", lost="the GPU is lost") for i in lost]
    return Gpus(len(readings), tuple(readings))


ALL = Links(tuple(range(18)))
ONE_DOWN = Links((0, 1, 2, *range(4, 18)), (3,))
ALL_DOWN = Links((), tuple(range(18)))
BARE_CARD = Links((), (0, 1, 2, 3), is_card=True)
NO_LINK = Links(())
WITH_ERRORS = Links((0, 1), errors=(Errors(0, 0, "replay"), Errors(7, 1, "data CRC")))
NOT_COUNTED = Links((0, 1), errors=None)


@pytest.mark.parametrize(
    ("observation", "parameters", "status", "words"),
    [
        (seen(ALL, ALL), {}, Status.PASS, "18 NVLinks are active on each GPU"),
        (seen(ALL, ONE_DOWN), {}, Status.FAIL, "GPU 1: 17 of 18 NVLinks are active (down: 3)"),
        (seen(ALL_DOWN, ALL_DOWN), {}, Status.FAIL, "GPU 0: 0 of 18 NVLinks are active"),
        (seen(ALL_DOWN, ALL_DOWN), {"links": 0}, Status.PASS, "no NVLink here"),
        (seen(ALL, NO_LINK), {}, Status.FAIL, "GPU 1: 0 of 18 NVLinks are active"),
        (seen(NO_LINK, NO_LINK), {}, Status.PASS, "no NVLink here"),
        (seen(NO_LINK), {"links": 4}, Status.FAIL, "0 of 4"),
        (seen(BARE_CARD), {}, Status.PASS, "no NVLink here"),
        (seen(BARE_CARD), {"links": 4}, Status.FAIL, "0 of 4"),
        (seen(Links((0,), (1, 2, 3), is_card=True)), {}, Status.FAIL, "1 of 4"),
        (seen(ONE_DOWN), {"links": 17}, Status.PASS, "17 NVLinks"),
        (seen(WITH_ERRORS), {}, Status.FAIL, "GPU 0: link 1 has counted 7 data CRC errors"),
        (seen(WITH_ERRORS), {"max_errors": 7}, Status.PASS, "2 NVLinks"),
        (seen(WITH_ERRORS), {"max_errors": 6}, Status.FAIL, "7 data CRC"),
        (seen(NOT_COUNTED), {}, Status.PASS, "GPU 0 does not count errors"),
        (seen(ALL, lost=[1]), {}, Status.UNKNOWN, "lost"),
        (Gpus(2, ()), {}, Status.UNKNOWN, "no GPU to look at"),
        (Gpus(0, ()), {}, Status.PASS, "none expected"),
    ],
)
def test_gpu_nvlink(observation, parameters, status, words):
    judgement = gpu_nvlink.judge(observation, gpu_nvlink.Parameters(**parameters))

    assert (judgement.status, words in judgement.reason) == (status, True), judgement.reason


@given(st.sets(st.integers(0, 17)), st.sets(st.integers(0, 17)), st.integers(0, 100), st.integers(0, 100))
def test_fewer_links_and_more_errors_are_never_better(down, more_down, errors, more_errors):
    def passes(down, errors):
        up = tuple(link for link in range(18) if link not in down)
        links = Links(up, tuple(down), tuple(Errors(errors, link, "replay") for link in up))
        judgement = gpu_nvlink.judge(seen(ALL, links), gpu_nvlink.Parameters(max_errors=50))
        return judgement.status is Status.PASS

    assert passes(down, errors) >= passes(down | more_down, errors + more_errors)
    assert passes(down, errors) == (not down and errors <= 50)


@pytest.mark.parametrize(
    ("mask", "parameters", "status", "words"),
    [
        (0x0, {}, Status.PASS, "nothing"),
        (0x1, {}, Status.PASS, "nothing"),
        (0x5, {}, Status.PASS, "nothing"),
        (0x2, {}, Status.FAIL, "application_clocks"),
        (0x2, {"allowed": ("application_clocks",)}, Status.PASS, "nothing"),
        (0x1, {"allowed": ()}, Status.FAIL, "idle"),
        (0x49, {}, Status.FAIL, "GPU 1 is slowed down: hw_slowdown, hw_thermal"),
        (0x88, {}, Status.FAIL, "hw_slowdown, hw_power_brake"),
        (0x20, {}, Status.FAIL, "sw_thermal"),
        (0x1000, {}, Status.FAIL, "0x1000"),
        (None, {}, Status.UNKNOWN, "not known"),
    ],
)
def test_gpu_throttle(mask, parameters, status, words):
    judgement = gpu_throttle.judge(seen(0, mask), gpu_throttle.Parameters(**parameters))

    assert (judgement.status, words in judgement.reason) == (status, True), judgement.reason


@given(st.integers(0, (1 << 16) - 1), st.integers(0, (1 << 16) - 1))
def test_one_more_reason_is_never_better(mask, more):
    def passes(mask):
        return gpu_throttle.judge(seen(mask), gpu_throttle.Parameters()).status is Status.PASS

    assert passes(mask) == (mask & ~0x5 == 0)
    assert passes(mask) >= passes(mask | more)


FULL = Clocks(1980, 1980, 1980, 1980)


@pytest.mark.parametrize(
    ("clocks", "parameters", "status", "words"),
    [
        (FULL, {}, Status.PASS, "as high"),
        (Clocks(1980, 1980, 345, 1980), {}, Status.PASS, "as high"),
        (Clocks(1980, 1980, 345, 1980), {"min_sm_fraction": 0.9}, Status.FAIL, "SM clock is 345 of 1980 MHz"),
        (Clocks(1979, 1980, 1980, 1980), {}, Status.FAIL, "application clock is 1979 of 1980"),
        (Clocks(990, 1980, 1980, 1980), {"min_application_fraction": 0.5}, Status.PASS, "as high"),
        (Clocks(None, None, 1980, 1980), {}, Status.UNKNOWN, "application clock is not known"),
        (Clocks(1980, 0, 1980, 1980), {}, Status.UNKNOWN, "not known"),
        (Clocks(None, None, 345, 1980), {"min_sm_fraction": 0.9}, Status.FAIL, "SM clock"),
        (Clocks(1980, 1980, None, 1980), {"min_sm_fraction": 0.9}, Status.UNKNOWN, "SM clock is not known"),
    ],
)
def test_gpu_clocks(clocks, parameters, status, words):
    judgement = gpu_clocks.judge(seen(FULL, clocks), gpu_clocks.Parameters(**parameters))

    assert (judgement.status, words in judgement.reason) == (status, True), judgement.reason


@pytest.mark.parametrize(
    ("link", "parameters", "status", "words"),
    [
        (Link(5, 5, 16, 16), {}, Status.PASS, "as they must"),
        (Link(5, 5, 8, 16), {}, Status.FAIL, "GPU 1: 8 of 16 PCIe lanes"),
        (Link(4, 5, 16, 16), {}, Status.FAIL, "GPU 1: PCIe generation 4 instead of 5"),
        (Link(1, 5, 16, 16, performance_state=8), {}, Status.PASS, "not the generation of GPU 1"),
        (Link(1, 5, 8, 16, performance_state=8), {}, Status.FAIL, "8 of 16"),
        (Link(1, 5, 16, 16, performance_state=8), {"generation": 5}, Status.FAIL, "generation 1 instead of 5"),
        (Link(1, 5, 16, 16, performance_state=None), {}, Status.FAIL, "generation 1 instead of 5"),
        (Link(4, 5, 16, 16), {"generation": 4}, Status.PASS, "as they must"),
        (Link(5, 5, 1, 16), {"width": 1}, Status.PASS, "as they must"),
        (Link(5, 5, 8, 8), {"width": 16}, Status.FAIL, "8 of 16"),
        (None, {}, Status.UNKNOWN, "not known"),
    ],
)
def test_pcie(link, parameters, status, words):
    judgement = pcie.judge(seen(Link(5, 5, 16, 16), link), pcie.Parameters(**parameters))

    assert (judgement.status, words in judgement.reason) == (status, True), judgement.reason


@given(st.integers(1, 6), st.integers(0, 3), st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4]))
def test_a_slower_or_narrower_link_is_never_better(generation, lower, width, narrower):
    def passes(generation, width):
        link = Link(generation, 6, width, 16)
        return pcie.judge(seen(link), pcie.Parameters(generation=4, width=8)).status is Status.PASS

    assert passes(generation, width) == (generation >= 4 and width >= 8)
    assert passes(generation, width) >= passes(generation - lower, width // narrower)


@pytest.mark.parametrize(
    ("ecc", "parameters", "status", "words"),
    [
        (Ecc(0, None, None, corrected=20_000_000), {}, Status.PASS, "0 uncorrected"),
        (Ecc(0, None, None, corrected=20_000_001), {}, Status.FAIL, "GPU 0: 20000001 corrected memory errors"),
        (Ecc(0, None, None, retired_pages=10), {}, Status.PASS, "0 uncorrected"),
        (Ecc(0, None, None, retired_pages=11), {}, Status.FAIL, "GPU 0: 11 retired pages"),
        (Ecc(0, None, None, retired_pages=11), {"max_retired_pages": 11}, Status.PASS, "0 uncorrected"),
        (Ecc(0, None, None, retired_pages=1, retirement_pending=True), {}, Status.FAIL, "waits for retirement"),
        (Ecc(0, False, False, remapped_rows=512), {}, Status.PASS, "0 uncorrected"),  # noqa: FBT003 - as observed
        (Ecc(0, False, False, remapped_rows=513), {}, Status.FAIL, "513 rows"),  # noqa: FBT003 - as observed
    ],
)
def test_repairs_of_memory(ecc, parameters, status, words):
    judgement = gpu_ecc.judge(seen(ecc), gpu_ecc.Parameters(**parameters))

    assert (judgement.status, words in judgement.reason) == (status, True), judgement.reason


HEALTHY = ["type: gpu_nvlink", "type: gpu_throttle", "type: gpu_clocks", "type: pcie", "type: gpu_ecc"]


@pytest.mark.parametrize("model", ["h100", "gh200", "a100"])
def test_healthy_simulated_gpus_pass(simulated_node, model):
    node = simulated_node(model)

    found = {entry: node.check(entry) for entry in HEALTHY}

    assert {entry: result["status"] for entry, result in found.items()} == dict.fromkeys(HEALTHY, "pass"), found


SEEN_THROUGH_NVML = [
    ({"nvlink_down": 4}, "type: gpu_nvlink", "fail", "GPU 1: 17 of 18 NVLinks are active (down: 4)"),
    ({"nvlink_errors": 3}, "type: gpu_nvlink", "fail", "GPU 1: link 0 has counted 3 replay errors"),
    ({"throttle": "thermal"}, "type: gpu_throttle", "fail", "GPU 1 is slowed down: hw_slowdown, hw_thermal"),
    ({"throttle": "power"}, "type: gpu_throttle", "fail", "GPU 1 is slowed down: hw_slowdown, hw_power_brake"),
    ({"throttle": "hw-slowdown"}, "type: gpu_throttle", "fail", "GPU 1 is slowed down: hw_slowdown"),
    ({"temp": 88}, "type: gpu_throttle", "fail", "GPU 1 is slowed down: sw_thermal"),
    ({"pcie_width": 8}, "type: pcie", "fail", "GPU 1: 8 of 16 PCIe lanes"),
    ({"remap": "pending"}, "type: gpu_ecc", "fail", "GPU 1: a row waits for remapping"),
    ({"ecc_corrected": 101}, "type: gpu_ecc, max_corrected: 100", "fail", "GPU 1: 101 corrected memory errors"),
    ({"xid": 79}, "type: gpu_nvlink", "unknown", "GPU 1: the GPU is lost: it has fallen off the bus"),
    ({"xid": 79}, "type: gpu_throttle", "unknown", "GPU 1: the GPU is lost: it has fallen off the bus"),
    ({"xid": 79}, "type: gpu_clocks", "unknown", "GPU 1: the GPU is lost: it has fallen off the bus"),
    ({"xid": 79}, "type: pcie", "unknown", "GPU 1: the GPU is lost: it has fallen off the bus"),
]


@pytest.mark.parametrize(
    ("fault", "entry", "status", "reason"),
    SEEN_THROUGH_NVML,
    ids=[f"{case[0]} {case[1]}" for case in SEEN_THROUGH_NVML],
)
def test_faults_of_simulated_gpus_are_seen(simulated_node, fault, entry, status, reason):
    node = simulated_node()
    node.fault(**fault)

    found = node.check(entry)

    assert (found["status"], found["reason"]) == (status, reason)


def test_a_slow_gpu_shows_in_its_clock_under_load(simulated_node):
    node = simulated_node()
    for index in (0, 1):
        lab_gpus.hint(node.directory, index, "compute", ttl_s=60)
    node.fault(slow=0.5)
    time.sleep(1.0)  # five time constants of the clock

    found = node.check("type: gpu_clocks, min_sm_fraction: 0.9")

    assert found["status"] == "fail"
    assert found["reason"].startswith("GPU 1: SM clock is 9")
