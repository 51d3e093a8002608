"""Redaction: what is a secret, what is none, and that a second time changes nothing."""

import pytest
from leaking import HUGGING_FACE, OPENAI, SCRIPT, SECRETS, WANDB

from piolet.core.redact import names_secret, redact, redacted, secrets

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\nAAAA\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret", "kind"),
    [
        (f"login {HUGGING_FACE}", HUGGING_FACE, "hugging-face-token"),
        (f"+ export WANDB_API_KEY={WANDB}", WANDB, "secret"),
        ("curl -u me:hunter22 https://x", "hunter22", "password"),
        ("git clone https://me:hunter22@git.x/y", "hunter22", "password"),
        ("train --password correcthorse", "correcthorse", "secret"),
        ("train --api-key=abc123def", "abc123def", "secret"),
        ('token = "abcdefg1"', "abcdefg1", "secret"),
        ('{"password": "abcdefgh"}', "abcdefgh", "secret"),
        ("db_password: pa55w0rd", "pa55w0rd", "secret"),
        ("Authorization: Bearer abcdef12345", "abcdef12345", "authorization"),
        ("export AWS_SECRET_ACCESS_KEY=/" + "aB3" * 13, "/" + "aB3" * 13, "secret"),
        ("x AKIAABCDEFGHIJKLMNOP y", "AKIAABCDEFGHIJKLMNOP", "aws-access-key"),
        (f"key:\n{KEY}\nend", "b3BlbnNzaC1rZXk\nAAAA", "private-key"),
    ],
)
def test_a_secret_is_taken_out_and_the_rest_stays(text, secret, kind):
    clean = redact(text, {})
    assert secret not in clean
    assert f"[redacted: {kind}]" in clean
    before, _, after = text.partition(secret)
    assert clean.startswith(before.rstrip("\n"))
    assert clean.endswith(after.lstrip("\n"))
    assert redact(clean, {}) == clean


@pytest.mark.parametrize(
    "text",
    [
        "token=token, max_tokens=4096",
        "tokenizer = 'gpt2-large'",
        '"eos_token": "<|endoftext|>", "pad_token": "[PAD]"',
        "export TOKEN=$(cat ~/.token)",
        "export HF_TOKEN_PATH=/run/secrets/hf",
        "export SECRET_KEY=/run/secrets/key",
        "login(password=args.password, api_key=os.environ['X'])",
        "tokens per second: 123456.7, key: value123",
        "next_token = sample_2d(logits)",
        "--max-token 4096",
        "https://example.org:8080/a@b",
    ],
)
def test_what_only_looks_like_one_stays(text):
    assert redact(text, {}) == text


def test_a_variable_of_this_process_is_known_by_its_value():
    assert redact("it said hunter2hunter", {"DB_PASSWORD": "hunter2hunter"}) == "it said [redacted: DB_PASSWORD]"
    assert redact("bin:/usr/bin", {"PATH": "bin:/usr/bin", "TOKEN": "short"}) == "bin:/usr/bin"


def test_neighbours_name_secrets():
    value = {
        "command": ("train", "--password", "correct", "--epochs", "300000000"),
        "values": [{"key": "env.DB_PASSWORD", "value": "correct", "origin": "a.toml:3"}],
        "HF_TOKEN": "whatever",
        "count": 3,
    }
    clean = redacted(value, {})
    assert clean["command"] == ("train", "--password", "[redacted: secret]", "--epochs", "300000000")
    assert clean["values"][0] == {"key": "env.DB_PASSWORD", "value": "[redacted: secret]", "origin": "a.toml:3"}
    assert "[redacted: secret]" in clean["HF_TOKEN"]
    assert clean["count"] == 3


def test_the_whole_script_is_clean_afterwards():
    clean = redact(SCRIPT, {})
    assert not [secret for secret in SECRETS if secret in clean]
    assert len(clean.splitlines()) == len(SCRIPT.splitlines())


def test_a_form_tells_more_than_a_name():
    (found,) = secrets(f"export OPENAI_API_KEY={OPENAI}")
    assert found.kind == "openai-key"


def test_names():
    assert all(map(names_secret, ("HF_TOKEN", "env.DB_PASSWORD", "--api-key", "AWS_SECRET_ACCESS_KEY")))
    assert not any(map(names_secret, ("TOKENIZERS_PARALLELISM", "KEYBOARD", "PATH", "max_tokens")))
