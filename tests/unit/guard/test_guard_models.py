"""Every file of the corpus: each malicious one fails, each benign one is quiet, and nothing is executed."""

import json
import subprocess
from pathlib import Path

import model_corpus
import pytest

from piolet.cli.main import run_command
from piolet.core.errors import ConfigError, UsageError
from piolet.guard.finding import Level
from piolet.guard.models import scan_model, scan_models
from piolet.guard.policy import ModelLimits, Policy

TORCH = Path(__file__).parents[3] / ".venv-torch/bin/python"
BAD, GOOD = model_corpus.malicious(), model_corpus.benign()


def scanned(directory, name, content, limits=None):
    path = directory / name
    path.write_bytes(content)
    return scan_model(path, limits or ModelLimits()).risks


def fails(risks):
    return [risk for risk in risks if Policy().level(risk.rule) is Level.FAIL]


def test_the_corpus_is_as_large_as_it_is_to_be():
    assert len(BAD) >= 40
    assert len(GOOD) >= 40


@pytest.mark.parametrize("name", BAD)
def test_a_malicious_file_fails(tmp_path, name):
    content = BAD[name]
    assert fails(scanned(tmp_path, name, content.encode() if isinstance(content, str) else content))
    assert not Path("/tmp/piolet-corpus-ran").exists()  # noqa: S108 - what a payload would make


@pytest.mark.parametrize("name", GOOD)
def test_a_benign_file_is_quiet(tmp_path, name):
    assert scanned(tmp_path, name, GOOD[name]) == ()


def test_files_of_the_real_libraries_are_quiet(tmp_path):
    script = Path(model_corpus.__file__).with_name("real_models.py")
    subprocess.run([TORCH, "-W", "ignore", script, tmp_path / "real"], check=True, timeout=120)
    scan = scan_models([tmp_path / "real"], ModelLimits())
    assert scan.files == 10
    assert scan.risks == ()


def test_what_is_imported_is_named_and_a_policy_may_list_it(tmp_path):
    content = BAD["call_unknown.pkl"]
    (risk,) = scanned(tmp_path, "a.pkl", content)
    assert (risk.rule, risk.reason) == ("model/unlisted-import", "it imports some_package.tools.Runner")
    for listed in ("some_package.tools.Runner", "some_package.*"):
        assert scanned(tmp_path, "a.pkl", content, ModelLimits(imports=(listed,))) == ()
    function = model_corpus.named("some_package.tools", "run")
    assert scanned(tmp_path, "a.pkl", function, ModelLimits(imports=("some_package.*",)))


def test_limits_are_kept(tmp_path):
    deep = model_corpus.zipped({"a.zip": model_corpus.zipped({"b.pkl": GOOD["set.pkl"]})})
    assert scanned(tmp_path, "deep.zip", deep) == ()
    (risk,) = scanned(tmp_path, "deep.zip", deep, ModelLimits(max_depth=1))
    assert risk.rule == "model/limits"
    (risk,) = scanned(tmp_path, "a.pkl.gz", GOOD["gzip.pkl.gz"], ModelLimits(max_bytes=10))
    assert risk.rule == "model/limits"


def test_remote_code_warns_and_an_unknown_format_is_unknown(tmp_path):
    own = json.dumps({"auto_map": {"AutoModel": "modeling.Model"}}).encode()
    (risk,) = scanned(tmp_path, "config.json", own)
    assert risk.rule == "model/remote-code"
    (risk,) = scanned(tmp_path, "weights.xyz", b"anything")
    assert Policy().level(risk.rule) is Level.UNKNOWN


def test_a_manifest_names_every_file(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "a.safetensors").write_bytes(GOOD["model.safetensors"])
    manifest = model / "SHA256SUMS.sha256"
    sums = subprocess.run(["sha256sum", "a.safetensors"], cwd=model, check=True, capture_output=True, text=True).stdout
    manifest.write_text(sums)
    assert scan_models([model], ModelLimits(), manifest).risks == ()
    (model / "b.md").write_text("new")
    manifest.write_text(sums + "0" * 64 + "  absent\n")
    reasons = {Path(risk.path).name: risk.reason for risk in scan_models([model], ModelLimits(), manifest).risks}
    assert set(reasons) == {"b.md", "absent"}
    (model / "a.safetensors").write_bytes(GOOD["empty.safetensors"])
    assert any("SHA-256" in risk.reason for risk in scan_models([model], ModelLimits(), manifest).risks)
    manifest.write_text("not a digest\n")
    with pytest.raises(ConfigError) as error:
        scan_models([model], ModelLimits(), manifest)
    assert error.value.line == 1


def test_the_command(tmp_path, capsys, monkeypatch):
    (tmp_path / "site.toml").touch()
    monkeypatch.setenv("PIOLET_SITE_CONFIG", str(tmp_path / "site.toml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    model_corpus.write(tmp_path)
    assert run_command(["guard", "model", str(tmp_path / "benign")]) == 0
    assert run_command(["guard", "model", "--format", "json", str(tmp_path / "malicious")]) == 1
    assert len({risk["path"] for risk in json.loads(capsys.readouterr().out.partition("\n")[2])["risks"]}) == len(BAD)
    with pytest.raises(UsageError):
        scan_models([tmp_path / "absent"], ModelLimits())
