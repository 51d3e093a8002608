"""Protocols: what is accepted, and that everything else is an error with its line and a hint."""

from pathlib import Path

import pytest

from piolet.core.errors import ConfigError, UsageError
from piolet.core.settings import Settings, VetSettings
from piolet.vet import load_protocol
from piolet.vet.catalogue import SHIPPED
from piolet.vet.protocol import from_json


@pytest.fixture
def load(tmp_path):
    def _load(text: str, settings: Settings | None = None):
        path = tmp_path / "protocol.yaml"
        path.write_text(text, encoding="utf-8")
        return load_protocol(str(path), settings or Settings())

    return _load


def test_the_gpu_entry_of_a_vetnode_file_becomes_two_checks(load):
    protocol = load(
        """
name: "ML Training Node Vetting"
scheduler: slurm
pip: {index_url: "https://packages.example/simple"}
evals:
- name: "Check GPU"
  type: vetnode.evaluations.gpu_eval.GPUEval
  max_temp: 30
  max_used_memory: 0.2
  requirements: [torch, [numpy, scipy]]
"""
    )

    assert protocol.name == "ML Training Node Vetting"
    assert [(check.name, check.type) for check in protocol.checks] == [
        ("Check GPU (gpu_temperature)", "gpu_temperature"),
        ("Check GPU (gpu_memory)", "gpu_memory"),
    ]
    assert protocol.checks[0].parameters == {"below_celsius": 30.0}
    assert protocol.checks[1].parameters == {"max_used_fraction": 0.2, "allow_processes": False}
    assert protocol.checks[0].requirements == ("torch", "numpy", "scipy")


def test_the_bandwidth_entries_of_a_vetnode_file_become_all_reduce(load):
    protocol = load(
        """
evals:
- {name: plain, type: vetnode.evaluations.nccl_eval.NCCLEval, min_bandwidth: 90.0, requirements: [torch]}
- name: lib
  type: vetnode.evaluations.nccl_lib_eval.NcclLibEval
  requirements: [cuda-python, numpy]
  payload: 4 GB
  warmup: {payload: 256 MB, runs: 5}
  topology: intranode
  min_bandwidth: 15 GB/s
- name: pytorch
  type: vetnode.evaluations.nccl_pytorch_eval.NcclPytorchEval
  requirements: [[torch, --index-url, "https://packages.example/cu130"], numpy]
  scheduler: slurm
  method: allreduce
- {name: rccl, type: vetnode.evaluations.rccl_lib_eval.RcclLibEval, timeout: 90}
"""
    )

    plain, lib, pytorch, rccl = protocol.checks
    assert {check.type for check in protocol.checks} == {"all_reduce"}
    assert (plain.parameters["min_gb_per_s"], plain.requirements, plain.timeout_s) == (90.0, ("torch",), 60)
    assert (lib.parameters["sizes_mib"], lib.parameters["warmup"], lib.parameters["scope"]) == ((4096,), 5, "intranode")
    assert lib.parameters["min_gb_per_s"] == 15 * 2**30 / 1e9  # its units are binary
    assert pytorch.requirements == ("torch", "numpy")
    assert rccl.timeout_s == 90


def test_variables_and_internet_access_of_a_vetnode_file_become_checks(load):
    protocol = load(
        """
evals:
- name: Variables
  type: vetnode.evaluations.env_var_eval.EnvVarEval
  expected: {NCCL_NET: "AWS Libfabric", HOME: null}
- name: Internet
  type: vetnode.evaluations.internet_access.InternetAccessEval
  host: 192.0.2.1
  timeout: 5
- {name: Defaults, type: vetnode.evaluations.internet_access.InternetAccessEval, host: 192.0.2.1}
"""
    )

    variables, internet, defaults = protocol.checks
    assert (variables.name, variables.type) == ("Variables", "environment")
    assert variables.parameters == {"expected": {"NCCL_NET": "AWS Libfabric", "HOME": None}}
    assert internet.parameters == {"host": "192.0.2.1", "port": 53, "answer_s": 5.0}
    assert internet.timeout_s > 5.0, "a host that is silent fails; the check must live to say so"
    assert defaults.parameters == {"host": "192.0.2.1", "port": 53, "answer_s": 3.0}
    assert from_json(protocol.to_json()).to_json() == protocol.to_json()


def test_a_protocol_survives_the_way_to_the_node(load):
    protocol = load("evals:\n- {type: gpu_xid, fatal: [79, 48], timeout: 3}\n- {type: mounts, paths: [/a, '/ü b']}\n")

    assert from_json(protocol.to_json()).to_json() == protocol.to_json()
    assert protocol.checks[0].timeout_s == 3
    assert protocol.checks[0].reference == "piolet.vet.checks.gpu_xid:CHECK"


WRONG = {
    "unknown type": ("evals:\n- {name: a, type: gpu_cuont}\n", 2, 'no check of type "gpu_cuont"', '"gpu_count"'),
    "misspelt parameter": (
        "evals:\n- name: a\n  type: gpu_memory\n  max_used_fracton: 0.2\n",
        4,
        'no parameter "max_used_fracton"',
        '"max_used_fraction"',
    ),
    "text for a number": ("evals:\n- type: gpu_memory\n  max_used_fraction: '0.2'\n", 3, "valid number", "correct"),
    "truth for a number": ("evals:\n- type: gpu_count\n  expected: true\n", 3, "valid integer", "correct"),
    "out of range": ("evals:\n- type: gpu_memory\n  max_used_fraction: 20\n", 3, "less than or equal to 1", "correct"),
    "number for a list": ("evals:\n- type: mounts\n  paths: /scratch\n", 3, "valid array", "correct"),
    "missing parameter": ("evals:\n- type: gpu_temperature\n", 2, '"below_celsius" is missing', "vet explain"),
    "no checks": ("name: x\nevals: []\n", 2, "no checks", "list them"),
    "no evals at all": ("name: x\n", None, "no checks", "list them"),
    "evals as a mapping": ("evals: {a: 1}\n", 1, "not a list", "list them"),
    "entry without type": ("evals:\n- name: a\n", 2, "no `type`", "gpu_count"),
    "entry that is text": ("evals:\n- gpu_count\n", 2, "no `type`", "gpu_count"),
    "two of a name": ("evals:\n- type: gpu_count\n- type: gpu_count\n", 3, "two checks", "name"),
    "unknown key": ("nmae: x\nevals:\n- type: gpu_count\n", 1, 'unknown key "nmae"', '"name"'),
    "key twice": ("evals:\n- type: gpu_count\n  expected: 4\n  expected: 8\n", 4, "appears twice", "keep one"),
    "bad time-out": ("evals:\n- type: gpu_count\n  timeout: 0\n", 3, "timeout cannot be 0", "seconds"),
    "bad requirements": ("evals:\n- type: gpu_count\n  requirements: [3]\n", 3, "package names", "torch"),
    "name that is a number": ("name: 3\nevals:\n- type: gpu_count\n", 1, "not text", "quotes"),
    "check named by a number": ("evals:\n- {name: 3, type: gpu_count}\n", 2, "not text", "quotes"),
    "not YAML": ("evals:\n- {type: gpu_count\n", 3, "not valid YAML", "correct"),
    "not a mapping": ("- gpu_count\n", 1, "not a mapping", "evals"),
    "empty": ("", None, "no checks", "list them"),
    "a tag of Python": ("evals: !!python/object:os.system {}\n", 1, "not valid YAML", "correct"),
    "key that is not text": ("evals:\n- type: gpu_count\n  3: x\n", 3, "not text", "quotes"),
    "vetnode method that is another figure": (
        "evals:\n- {type: vetnode.evaluations.nccl_pytorch_eval.NcclPytorchEval, min_bandwidth: 15 GB/s}\n",
        2,
        "its method is broadcast, whose bandwidth is another figure",
        "method: allreduce",
    ),
    "vetnode payload without a unit that there is": (
        "evals:\n- type: vetnode.evaluations.nccl_eval.NCCLEval\n  payload: 4 bananas\n",
        3,
        "payload cannot be '4 bananas'",
        "4 GB",
    ),
    "vetnode warm-up that is a number": (
        "evals:\n- type: vetnode.evaluations.nccl_eval.NCCLEval\n  warmup: 3\n",
        3,
        "warmup cannot be 3",
        "runs: 3",
    ),
    "vetnode by chance": (
        "evals:\n- name: n\n  type: vetnode.evaluations.random.RandomEval\n",
        3,
        "a verdict must have a reason",
        "take this entry out",
    ),
    "vetnode variable that is a number": (
        "evals:\n- type: vetnode.evaluations.env_var_eval.EnvVarEval\n  expected: {OMP_NUM_THREADS: 4}\n",
        3,
        "valid string",
        "correct",
    ),
    "vetnode without variables": (
        "evals:\n- type: vetnode.evaluations.env_var_eval.EnvVarEval\n  expected: {}\n",
        3,
        "at least 1 item",
        "correct",
    ),
    "vetnode time-out": (
        "evals:\n- {type: vetnode.evaluations.internet_access.InternetAccessEval, host: a, timeout: 0}\n",
        2,
        "greater than 0",
        "correct",
    ),
    "vetnode misspelt": (
        "evals:\n- type: vetnode.evaluations.gpu_eval.GPUEvl\n",
        2,
        "vetnode has no type",
        "vetnode.evaluations.gpu_eval.GPUEval",
    ),
    "vetnode parameter misspelt": (
        "evals:\n- type: vetnode.evaluations.gpu_eval.GPUEval\n  max_tmp: 30\n",
        3,
        'no parameter "max_tmp"',
        '"max_temp"',
    ),
    "vetnode parameter missing": (
        "evals:\n- type: vetnode.evaluations.gpu_eval.GPUEval\n  max_temp: 30\n",
        2,
        '"max_used_memory" is missing',
        "needs",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_line_and_a_hint(load, case):
    text, line, what, remedy = WRONG[case]

    with pytest.raises(ConfigError) as caught:
        load(text)

    assert what in caught.value.what
    assert remedy in caught.value.remedy
    if line:
        assert f"protocol.yaml:{line}" in caught.value.where


LEVELS = "".join(
    f"{key}: &{key} [{', '.join([f'*{below}'] * 10)}]\n" for below, key in zip("abcde", "bcdef", strict=True)
)
BOMB = f"a: &a [{', '.join('x' * 10)}]\n{LEVELS}"


@pytest.mark.parametrize(
    ("text", "what"),
    [(BOMB, "too many values"), ("evals: &a [*a]\n", "contains itself"), ("name: " + "x" * (1 << 20), "larger than")],
)
def test_a_file_that_would_blow_up_is_refused(load, text, what):
    with pytest.raises(ConfigError, match=what):
        load(text)


def test_the_shipped_protocols_compile_and_are_found_by_name():
    names = sorted(path.stem for path in SHIPPED.glob("*.yaml"))

    protocols = [load_protocol(name, Settings()) for name in names]

    assert (
        [protocol.name for protocol in protocols]
        == names
        == ["burn-in", "large-scale", "ml-training", "network", "quick", "storage"]
    )


def test_a_protocol_of_the_site_comes_before_a_shipped_one(tmp_path):
    (tmp_path / "quick.yaml").write_text("name: ours\nevals:\n- type: mounts\n", encoding="utf-8")
    settings = Settings(vet=VetSettings(protocol_path=(tmp_path,)))

    assert load_protocol("quick", settings).name == "ours"
    assert load_protocol("ml-training", settings).name == "ml-training"


@pytest.mark.parametrize(("name", "remedy"), [("qiuck", '"quick"'), ("./absent.yaml", "path"), ("/a/b.yaml", "path")])
def test_an_unknown_protocol_is_an_error_with_a_hint(name, remedy):
    with pytest.raises(UsageError) as caught:
        load_protocol(name, Settings())

    assert remedy in caught.value.remedy


def test_a_bare_name_of_a_file_that_is_here_is_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("evals:\n- type: mounts\n", encoding="utf-8")

    with pytest.raises(UsageError) as caught:
        load_protocol("mine.yaml", Settings())

    assert "./mine.yaml" in caught.value.remedy
