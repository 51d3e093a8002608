"""GPUs through CUDA's driver and NVRTC: the calls, answered by a library that computes in the host's memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from piolet.core.run import SystemRunner
from piolet.core.settings import Settings
from piolet.vet import load_protocol
from piolet.vet.step import node_argv

PROTOCOL = "evals:\n- {type: gemm, size: 70, repetitions: 3}\n- {type: gpu_bandwidth, mib: 1, repetitions: 3}\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("cuda")
    source = Path(__file__).with_name("fake_cuda.c")
    for name in ("libcuda.so.1", "libnvrtc.so.12"):
        SystemRunner().run(
            ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", directory / name, source],
            timeout=60,
        )
    return directory


def vetted(library, tmp_path, gpus="0,1", **environ):
    (tmp_path / "p.yaml").write_text(PROTOCOL, encoding="utf-8")
    protocol = load_protocol(str(tmp_path / "p.yaml"), Settings())
    environment = {"LD_LIBRARY_PATH": str(library), "SLURM_JOB_ID": "1", "SLURM_STEP_GPUS": gpus}
    said = SystemRunner(environment | environ).run(node_argv(protocol), timeout=60).stdout
    return {each["check"]: each for each in json.loads(said.splitlines()[-1])["checks"]}


def test_products_are_alike_on_each_gpu_and_copies_arrive(library, tmp_path):
    found = vetted(library, tmp_path)

    assert {each["status"] for each in found.values()} == {"pass"}, found
    assert found["gemm"]["value"] > 0
    assert found["gpu_bandwidth"]["value"] > 0


def test_one_bit_that_is_flipped_in_one_product_is_found(library, tmp_path):
    found = vetted(library, tmp_path, FAKE_CUDA_FLIP="3")

    assert found["gemm"]["status"] == "fail"
    assert "GPU 0 (nvrtc): 1 of 3 products differ" in found["gemm"]["reason"]


def test_fewer_gpus_than_granted_are_not_enough(library, tmp_path):
    found = vetted(library, tmp_path, gpus="0,1,2")

    assert {each["status"] for each in found.values()} == {"unknown"}
    assert "nvrtc sees 2 GPUs" in found["gemm"]["reason"]


PRODUCT = """
import array, ctypes, random
from piolet.vet.cuda import CudaBackend
backend = CudaBackend(1)
left, right = backend.matrices(33)
product = array.array("f", backend._fetched(backend.multiply(left, right)))
one, other = (array.array("f", backend._fetched(each)) for each in (left, right))
for row, column in ((0, 0), (32, 32), (5, 17)):
    expected = sum(one[33 * row + k] * other[33 * k + column] for k in range(33))
    assert abs(product[33 * row + column] - expected) < 1e-4
assert one != other and min(one) >= 0 and max(one) < 1
"""


def test_the_product_is_that_of_the_matrices(library):
    SystemRunner({"LD_LIBRARY_PATH": str(library)}).run([sys.executable, "-c", PRODUCT], timeout=60)
