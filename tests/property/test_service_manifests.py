"""Whatever a service says: its objects are valid, restricted, in its own namespace, and YAML holds them unchanged."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from service_schemas import VERSIONS, problems

from piolet.service import platform as platforms
from piolet.service import rendered
from piolet.service.checking import check
from piolet.service.model import Service, contradictions
from piolet.service.policies import violations
from piolet.service.render.yamltext import dump

PLATFORM = platforms.read(Path(__file__).parents[2] / "examples/04-services/platform.toml")
TODAY = date(2027, 1, 15)

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("\n\t'\"{}[]#:&*!|>%@`-"),
    max_size=20,
)
TRICKY = st.sampled_from(
    [
        "yes",
        "null",
        "0o17",
        "1e3",
        "1:30",
        "~",
        "",
        " ",
        "- a",
        "a: b",
        "{{x}}",
        "$(A)",
        "0x1f",
        ".inf",
        "=",
        "<<",
        "!!x",
        "2027-01-01",
    ]
)
NAME = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
VOLUME = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
VARIABLE = st.from_regex(r"[A-Z_][A-Z0-9_]{0,6}", fullmatch=True)
PATH = st.from_regex(r"(/[a-z0-9#:{}-]{1,5}){1,3}", fullmatch=True)
SIZE = st.sampled_from(["512MiB", "1GiB", "8GiB"])
IMAGE = st.sampled_from([f"ghcr.io/example/a@sha256:{'0' * 64}", "ghcr.io/example/a:1", "evil.org/x:latest"])
VOLUMES = st.dictionaries(
    VOLUME,
    st.fixed_dictionaries(
        {"path": PATH, "size": SIZE, "kind": st.sampled_from(["shared", "fast", "none"]), "read_only": st.booleans()}
    ),
    max_size=2,
)
OPTIONAL = {
    "command": st.lists(TEXT | TRICKY, min_size=1, max_size=3),
    "run_on": st.sampled_from(["commodity", "gpu"]),
    "replicas": st.integers(1, 12) | st.fixed_dictionaries({"min": st.integers(1, 3), "max": st.integers(3, 12)}),
    "user": st.sampled_from([0, 1, 1000, 2**31 - 1]),
    "expose": st.sampled_from(["none", "project", "institution", "internet"]),
    "host": st.sampled_from(["x.climate.services.example.org", "x.genome.services.example.org"]),
    "auth": st.sampled_from(["oidc", "none"]),
    "metrics": PATH,
    "schedule": st.just("0 3 * * *"),
    "expires": st.dates(date(2026, 1, 1), date(2029, 1, 1)),
    "resources": st.fixed_dictionaries(
        {"cpus": st.floats(0.001, 32), "memory": SIZE}, optional={"gpus": st.integers(0, 4)}
    ),
    "health": st.fixed_dictionaries({"path": PATH, "startup_s": st.integers(1, 7200)}),
    "storage": VOLUMES,
    "env": st.dictionaries(VARIABLE, TEXT | TRICKY, max_size=3),
    "secrets": st.dictionaries(VARIABLE, st.sampled_from(["climate/a#b", "genome/a#b"]), max_size=2),
}
FILES = st.dictionaries(PATH, TEXT | TRICKY, max_size=2)
SERVICES = st.fixed_dictionaries(
    {"name": NAME, "project": st.just("climate"), "image": IMAGE, "port": st.integers(1024, 65535)}, optional=OPTIONAL
)


def made(values: dict) -> Service | None:
    """The service of `values`, without the keys that contradict others; None if that leaves contradictions."""
    service = Service.model_validate(values)
    for _ in range(4):
        wrong = {key.split(".")[0] for key, _, _ in contradictions(service)}
        if not wrong:
            return service
        values = {key: value for key, value in values.items() if key not in wrong}
        service = Service.model_validate(values)
    return None


@settings(deadline=None, max_examples=60)
@given(SERVICES, FILES, st.sampled_from(VERSIONS))
def test_whatever_is_rendered_is_valid_and_survives_yaml(values, files, version):
    service = made(values)
    if service is None:
        return
    objects = rendered(service, PLATFORM, files).objects
    assert [said for each in objects for said in problems(each, version)] == []
    assert list(yaml.safe_load_all(dump(objects))) == list(objects)
    assert {each["metadata"]["namespace"] for each in objects} == {"svc-climate"}


@settings(deadline=None, max_examples=40)
@given(SERVICES, FILES)
def test_whatever_passes_the_check_is_restricted_and_stays_in_its_project(values, files):
    service = made(values | {"expires": date(2027, 6, 1), "image": f"ghcr.io/example/a@sha256:{'0' * 64}"})
    if service is None:
        return
    document = SimpleNamespace(data=values, path=Path("service.toml"), position=lambda _: None)
    if check(SimpleNamespace(service=service, document=document, contents=files), PLATFORM, TODAY):
        return
    objects = rendered(service, PLATFORM, files).objects
    assert [broken for each in objects for broken in violations(each, "climate", PLATFORM, TODAY)] == []
    assert all(broken.policy.id == "own-namespace" for each in objects for broken in _as_genome(each))


def _as_genome(each: dict) -> list:
    """What the objects break when another project's path holds them: at least their namespace."""
    found = list(violations(each, "genome", PLATFORM, TODAY))
    assert found
    return [broken for broken in found if broken.policy.id == "own-namespace"]


@given(NAME, NAME, VOLUME, VOLUME)
def test_services_of_a_project_never_share_a_name(a, b, one, two):
    if a == b:
        return
    names = []
    for name, volume in ((a, one), (b, two)):
        storage = {volume: {"path": "/a", "size": "1GiB"}}
        values = {
            "name": name,
            "project": "climate",
            "image": "i",
            "port": 8080,
            "storage": storage,
            "secrets": {"A": "climate/a#b"},
        }
        objects = rendered(Service.model_validate(values), PLATFORM, {"/etc/a": "x"}).objects
        names.append({(each["kind"], each["metadata"]["name"]) for each in objects})
    assert not names[0] & names[1]


@given(
    st.recursive(
        TEXT | TRICKY | st.integers() | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    )
)
def test_yaml_holds_any_text(value):
    assert list(yaml.safe_load_all(dump([value]))) == [value]
