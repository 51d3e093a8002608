"""`piolet run --guard`: what leaks is refused before anything begins."""

import pytest
from leaking import OPENAI, SCRIPT, SECRETS

from piolet.cli.main import run_command


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """Run `piolet run --local --guard` in a directory of its own; gives exit status and stderr."""
    (tmp_path / "site.toml").touch()
    monkeypatch.setenv("PIOLET_SITE_CONFIG", str(tmp_path / "site.toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PIOLET_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)

    def go(*argv):
        status = run_command(["run", "--local", "--guard", *argv])
        return status, capfd.readouterr().err

    return go


def test_a_leaking_script_is_refused_and_nothing_begins(run, tmp_path):
    (tmp_path / "job.sh").write_text(SCRIPT)
    status, err = run("--", "bash", "job.sh")
    assert status == 2
    assert "secret/value at" in err
    assert "job.sh:5" in err
    assert not [secret for secret in SECRETS if secret in err]
    assert not (tmp_path / "root").exists()


def test_so_is_a_secret_on_the_command_line_and_in_an_environment(run, tmp_path):
    status, err = run("--", "true", "--api-key", OPENAI)
    assert status == 2
    assert "command line" in err
    (tmp_path / "base.toml").write_text(f'[env]\nOPENAI_API_KEY = "{OPENAI}"\n')
    (tmp_path / "env.toml").write_text(f'base_environment = "{tmp_path}/base.toml"\nimage = "/image.sqsh"\n')
    status, err = run("--env", "./env.toml", "--", "true")
    assert status == 2
    assert "base.toml:2" in err


def test_a_habit_is_told_and_the_policy_may_refuse_it(run, tmp_path, monkeypatch):
    (tmp_path / "job.sh").write_text("#!/bin/bash\nset -x\ntrue\n")
    status, err = run("--", "bash", "job.sh")
    assert status == 0
    assert "guard: habit/trace" in err
    (tmp_path / "policy.toml").write_text('[levels]\n"habit/*" = "fail"\n')
    monkeypatch.setenv("PIOLET_GUARD_POLICY", str(tmp_path / "policy.toml"))
    status, err = run("--", "bash", "job.sh")
    assert status == 2
