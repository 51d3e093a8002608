"""Scripts, logs and environments as users scan them, and the policy that judges."""

import json
from pathlib import Path

import pytest
from leaking import HUGGING_FACE, LEAKS, OPENAI, SCRIPT, SECRETS

from piolet.cli.main import run_command
from piolet.core.errors import Refused
from piolet.core.settings import Settings
from piolet.guard import texts
from piolet.guard.habits import habits
from piolet.launch import guarding


@pytest.fixture
def guard(capsys, monkeypatch, tmp_path):
    """Run `piolet guard`; gives exit status, stdout and stderr."""
    (tmp_path / "site.toml").touch()
    monkeypatch.setenv("PIOLET_SITE_CONFIG", str(tmp_path / "site.toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*argv):
        status = run_command(["guard", *map(str, argv)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "job.sh"
    path.write_text(SCRIPT)
    path.chmod(0o600)
    return path


def test_all_seven_leaks_are_found_and_none_is_repeated(guard, script):
    status, out, _ = guard("script", "--format", "json", script)
    found = json.loads(out)
    assert status == 1 == found["exit_status"]
    seen = {(risk["line"], risk["rule"]) for risk in found["risks"]}
    assert set(LEAKS.items()) <= seen
    assert {line for line, _ in seen} == set(LEAKS)  # no false alarm: comments and the rest are quiet
    assert not [secret for secret in SECRETS if secret in out]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("set -euxo pipefail", "habit/trace"),
        ("bash -x run.sh", "habit/trace"),
        ("cat $0", "habit/prints-itself"),
        ("env > log.txt", "habit/prints-environment"),
        ("python -c 'import os; print(os.environ)'", "habit/prints-environment"),
        ("cd x && printenv", "habit/prints-environment"),
        ('echo "token: $HF_TOKEN"', "habit/prints-secret"),
        ("export HF_TOKEN=$(cat ~/.hf)", "habit/exported-secret"),
        ("srun -n4 train --key $API_KEY", "habit/secret-argument"),
        ("chmod a+rwx .", "habit/open-to-all"),
        ("chmod -R 0777 \\\n  /scratch/me", "habit/open-to-all"),
        ("curl -sSL https://x.sh | bash", "habit/unverified-download"),
        ("curl -k https://x", "habit/unverified-download"),
        ("jupyter lab --ServerApp.token='' --ip=0.0.0.0", "habit/open-server"),
    ],
)
def test_a_habit_is_found_at_its_line(line, rule):
    assert (2, rule) in {(number, found.id) for number, found, _ in habits(f"#!/bin/bash\n{line}\n")}


@pytest.mark.parametrize(
    "line",
    [
        "# set -x",
        "echo 'set -x; cat $0; printenv'",
        "set -euo pipefail",
        "env FOO=1 python train.py",
        "printenv PATH",
        "echo ${HF_TOKEN:+set}".replace("HF_TOKEN", "HF_HOME"),
        "chmod 755 run.sh; chmod g+w x; chmod 640 y",
        "curl -fsS https://x -o y",
        "bash run.sh -x",
    ],
)
def test_what_is_no_habit_is_quiet(line):
    assert list(habits(f"{line}\n")) == []


def test_a_log_of_many_pieces_keeps_its_line_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "_CHUNK_BYTES", 64)
    log = tmp_path / "job.log"
    log.write_text("step 1 loss 2.5\n" * 99 + f"login with {HUGGING_FACE}\n" + "step 2\n" * 50)
    log.chmod(0o600)
    scan = texts.scan_logs([log])
    assert [(risk.line, risk.rule) for risk in scan.risks] == [(100, "secret/value")]
    assert scan.size_bytes == log.stat().st_size


def test_environments_and_what_others_can_read(guard, tmp_path):
    edf = tmp_path / "env.toml"
    edf.write_text(f'image = "x.sqsh"\n[env]\nOPENAI_API_KEY = "{OPENAI}"\nLD_PRELOAD = "/tmp/x.so"\n')
    edf.chmod(0o644)
    status, out, _ = guard("env", "--format", "json", edf)
    assert status == 1
    found = {(risk["line"], risk["rule"]) for risk in json.loads(out)["risks"]}
    assert found == {(3, "secret/value"), (4, "environment/loader"), (None, "habit/readable-secret")}


def test_an_environment_is_scanned_by_its_name_with_what_it_builds_on(guard, tmp_path, monkeypatch):
    (tmp_path / "base.toml").write_text('image = "x.sqsh"\n[env]\nLD_PRELOAD = "/tmp/x.so"\n')
    (tmp_path / "mine.toml").write_text('base_environment = "base"\n')
    monkeypatch.setenv("EDF_PATH", str(tmp_path))
    status, out, _ = guard("env", "--format", "json", "mine")
    assert status == 1
    assert {Path(risk["path"]).name for risk in json.loads(out)["risks"]} == {"base.toml"}
    status, _, err = guard("env", "mein")
    assert (status, 'no environment "mein"' in err, 'did you mean "mine"?' in err) == (2, True, True)


def test_a_policy_sets_levels_allows_and_expires(guard, script, tmp_path):
    policy = tmp_path / "policy.toml"
    allowance = '[[allow]]\nrule = "secret/*"\npath = "*/job.sh"\nreason = "made up"\nexpires = {}\n'
    policy.write_text('[levels]\n"habit/*" = "ignore"\n' + allowance.format("2999-01-01"))
    status, out, _ = guard("script", "--policy", policy, script)
    assert status == 0
    assert "ignored or allowed" in out
    policy.write_text(allowance.format("2020-01-01"))
    status, out, _ = guard("script", "--policy", policy, script)
    assert status == 1
    assert "policy/expired" in out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[levels]\n"habits/*" = "warn"', 'no rule "habits/*"'),
        ('[levels]\n"habit/*" = "loud"', "levels.habit/*"),
        ('[[allow]]\nrule = "secret/*"\nexpires = 2030-01-01', "allow[0].reason"),
        ("levle = 1", "levle"),
        ("a = ", "not valid TOML"),
    ],
)
def test_a_wrong_policy_is_one_clear_error(guard, script, tmp_path, text, says):
    policy = tmp_path / "policy.toml"
    policy.write_text(text)
    status, out, err = guard("script", "--policy", policy, script)
    assert (status, out) == (2, "")
    assert says in err
    assert f"{policy}:" in err


def test_what_is_not_there_and_what_is_too_large(guard, tmp_path, monkeypatch):
    status, _, err = guard("script", tmp_path / "absent.sh")
    assert status == 2
    assert "no such file" in err
    monkeypatch.setattr(texts, "MAX_SCRIPT_BYTES", 10)
    large = tmp_path / "large.sh"
    large.write_text("echo 0123456789\n")
    status, out, _ = guard("script", large)
    assert status == 3
    assert "unchecked/size" in out


def test_sarif_names_rules_places_and_suppressions(guard, script, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('[[allow]]\nrule = "habit/trace"\nreason = "wanted"\nexpires = 2999-01-01\n')
    _, out, _ = guard("script", "--policy", policy, "--sarif", tmp_path / "guard.sarif", script)
    (run,) = json.loads((tmp_path / "guard.sarif").read_text())["runs"]
    assert "habit/prints-itself" in out, "the table"
    names = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(names[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    lines = {r["ruleId"]: r["locations"][0]["physicalLocation"]["region"]["startLine"] for r in run["results"]}
    assert lines["habit/prints-itself"] == 8
    (trace,) = [result for result in run["results"] if result["ruleId"] == "habit/trace"]
    assert trace["suppressions"][0]["justification"].startswith("wanted")


def test_the_rules_are_listed_with_their_levels(guard):
    status, out, _ = guard("rules", "--format", "json")
    assert status == 0
    assert {"rule": "secret/value", "level": "fail"}.items() <= json.loads(out)[0].items()


def test_a_service_with_a_secret_in_its_file_does_not_pass(tmp_path):
    file = tmp_path / "service.toml"
    file.write_text(f'[env]\nHF_TOKEN = "{HUGGING_FACE}"\n')

    with pytest.raises(Refused, match="secret/value"):
        guarding.check_files([file], Settings())
    file.write_text('[env]\nPORT = "8000"\n')
    guarding.check_files([file], Settings())
