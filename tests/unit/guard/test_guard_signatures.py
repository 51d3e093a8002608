"""Signatures of models: made by the package model-signing, and verified; what was changed since is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing

from piolet.cli.main import run_command


def keys(directory: Path, name: str) -> tuple[Path, Path]:
    private = ec.generate_private_key(ec.SECP256R1())
    secret, public = directory / f"{name}.pem", directory / f"{name}.pub"
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret.write_bytes(private.private_bytes(serialization.Encoding.PEM, *form))
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, kind))
    return secret, public


@pytest.fixture
def signed(tmp_path, capsys):
    """A signed model; gives its directory and a function that scans it and returns exit status and risks."""
    secret, public = keys(tmp_path, "maker")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"hidden_size": 1}')
    signature = model / "model.sig"
    kept = hashing.Config().set_ignored_paths(paths=[signature])
    signing.Config().set_hashing_config(kept).use_elliptic_key_signer(private_key=secret).sign(model, signature)

    def scan(*options: object) -> tuple[int, dict[str, str]]:
        chosen = options or ("--signature", signature, "--public-key", public)
        status = run_command(["guard", "model", str(model), "--format", "json", *map(str, chosen)])
        captured = capsys.readouterr()
        risks = json.loads(captured.out)["risks"] if captured.out else []
        return status, {each["rule"]: each["reason"] for each in risks} or {"": captured.err}

    return model, scan


def test_a_model_as_it_was_signed_is_clean(signed):
    _, scan = signed

    assert scan() == (0, {"": ""})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: (model / "config.json").write_text("{}"), "Hash mismatch for 'config.json'"),
        (lambda model: (model / "config.json").unlink(), "Missing files in model 'model': config.json"),
        (lambda model: (model / "new.txt").touch(), "Extra files found in model 'model': new.txt"),
        (lambda model: (model / "model.sig").write_text("{}"), "verificationMaterial"),
        (lambda model: (model / "model.sig").write_text("torn"), "JSONDecodeError"),
    ],
)
def test_whatever_was_changed_since_fails(signed, change, said):
    model, scan = signed
    change(model)

    status, risks = scan()

    assert status == 1
    assert said in risks["model/signature"]


def test_the_signature_of_another_fails(signed, tmp_path):
    model, scan = signed
    _, other = keys(tmp_path, "other")

    status, risks = scan("--signature", model / "model.sig", "--public-key", other)

    assert (status, "Key mismatch" in risks["model/signature"]) == (1, True)


def test_what_is_missing_or_contradicts_itself_is_told(signed, tmp_path):
    model, scan = signed
    signature = ("--signature", model / "model.sig")

    assert "give --public-key FILE, or --identity" in scan(*signature)[1][""]
    assert "give --public-key FILE, or --identity" in scan(*signature, "--identity", "me")[1][""]
    assert "give its file" in scan("--public-key", tmp_path / "maker.pub")[1][""]
    (tmp_path / "no.pub").write_text("no key")
    assert "give a file in PEM" in scan(*signature, "--public-key", tmp_path / "no.pub")[1][""]
    status, said = scan(*signature, "--public-key", tmp_path / "absent")
    assert (status, "cannot read" in said[""]) == (3, True)
