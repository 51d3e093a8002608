"""The commands, as users type them, on this machine."""

import json

import pytest


@pytest.fixture
def protocol(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "protocol.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_list_names_protocols_and_checks_with_their_sources(piolet):
    status, out, _ = piolet("vet", "list", "--format", "json")

    found = json.loads(out)
    assert status == 0
    assert set(found["protocols"]) == {"quick", "ml-training", "large-scale", "network", "storage", "burn-in"}
    assert {"gpu_count", "gpu_ecc", "gpu_memory", "gpu_temperature", "gpu_xid", "mounts"} <= {
        check["type"] for check in found["checks"]
    }
    assert all(check["source"] and check["summary"] for check in found["checks"])
    assert found["broken"] == []
    assert "ml-training" in piolet("vet", "list")[1]


def test_explain_tells_parameters_and_defaults(piolet):
    status, out, _ = piolet("vet", "explain", "gpu_memory", "--format", "json")

    assert status == 0
    assert ["max_used_fraction", "float", "0.2"] in json.loads(out)["parameters"]
    assert "required" in piolet("vet", "explain", "gpu_temperature")[1]


@pytest.mark.parametrize(
    ("check", "row"),
    [
        ("environment", ["expected", "Mapping[str, str | None]", "required"]),
        ("disk", ["below_used_fraction", "float", "0.85"]),
        ("pcie", ["width", "int | None", "None"]),
        ("internet", ["port", "int", "53"]),
    ],
)
def test_explain_tells_types_without_their_bounds(piolet, check, row):
    assert row in json.loads(piolet("vet", "explain", check, "--format", "json")[1])["parameters"]


def test_explain_of_an_unknown_check_hints(piolet):
    status, out, err = piolet("vet", "explain", "gpu_memry")

    assert (status, out) == (2, "")
    assert 'did you mean "gpu_memory"?' in err


def test_check_prints_what_would_run(piolet):
    assert "max_used_fraction=0.2" in piolet("vet", "check", "ml-training")[1]
    status, out, _ = piolet("vet", "check", "quick", "--format", "json")
    assert (status, [check["type"] for check in json.loads(out)["checks"]]) == (0, ["gpu_count", "gpu_xid", "mounts"])


def test_check_of_a_wrong_protocol_is_one_clear_error(piolet, protocol):
    path = protocol("evals:\n- type: gpu_cuont\n")

    status, out, err = piolet("vet", "check", path)

    assert (status, out) == (2, "")
    assert f"where: {path}:2" in err
    assert 'next:  did you mean "gpu_count"?' in err


@pytest.mark.parametrize(
    ("entry", "status", "words"),
    [
        ("paths: [/proc]", 0, "1 of 1 ready"),
        ("paths: [/nowhere]", 1, "nothing is mounted there"),
        ("paths: [/proc], timeout: 0.000001", 3, "unknown"),
    ],
)
def test_this_machine_is_vetted_with_the_right_exit_status(piolet, protocol, entry, status, words):
    path = protocol(f"evals:\n- {{name: fs, type: mounts, {entry}}}\n")

    got, out, _ = piolet("vet", "run", "--local", "--protocol", path)

    assert got == status
    assert words in out


def test_outside_of_an_allocation_it_says_what_to_do(piolet):
    status, out, err = piolet("vet", "run")

    assert (status, out) == (2, "")
    assert "--local" in err


def test_nodes_outside_of_the_allocation_are_refused(piolet, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")

    status, _, err = piolet("vet", "run", "--nodes", "node[2-3]")

    assert status == 2
    assert "node3 is not in this allocation" in err


def test_the_nodes_side_says_that_it_begins_and_answers_with_one_line(piolet):
    status, out, _ = piolet("vet", "node", "--protocol", "quick")

    begins, answer = out.splitlines()
    assert status == 0
    assert begins.startswith("piolet-vet begins on ")
    assert answer.startswith('{"piolet_vet":1,"node":')
    assert [check["check"] for check in json.loads(answer)["checks"]] == ["GPU count", "GPU Xid", "mounts"]
