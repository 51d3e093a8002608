"""Strict schemas for rendered objects: those of Kubernetes, and ours for the few custom kinds that are rendered.

The custom ones are written from the documentation of Argo CD, external-secrets, the Prometheus operator and the Gateway
API, for the fields that are rendered; anything else is an error. `defined_problems` asks the definitions themselves,
which npm packages carry (Argo CD 2.14); they say nothing of unknown fields, so that both are asked.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35")
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
TEXT = {"type": "string"}


def table(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


CUSTOM = {
    "ExternalSecret": table(
        ["refreshInterval", "secretStoreRef", "target", "data"],
        refreshInterval=TEXT,
        secretStoreRef=table(["kind", "name"], kind={"enum": ["ClusterSecretStore", "SecretStore"]}, name=TEXT),
        target=table(["name"], name=TEXT),
        data=array(
            table(
                ["secretKey", "remoteRef"],
                secretKey=TEXT,
                remoteRef=table(["key", "property"], key=TEXT, property=TEXT),
            )
        ),
    ),
    "ServiceMonitor": table(
        ["selector", "endpoints"],
        selector=table(["matchLabels"], matchLabels={"type": "object"}),
        endpoints=array(table(["port", "path", "interval"], port=TEXT, path=TEXT, interval=TEXT)),
    ),
    "AppProject": table(
        ["sourceRepos", "destinations", "clusterResourceWhitelist", "namespaceResourceWhitelist"],
        description=TEXT,
        sourceRepos=array(TEXT),
        destinations=array(table(["server", "namespace"], server=TEXT, namespace=TEXT)),
        clusterResourceWhitelist={"type": "array", "maxItems": 0},
        namespaceResourceWhitelist=array(table(["group", "kind"], group=TEXT, kind=TEXT)),
        destinationServiceAccounts=array(
            table(
                ["server", "namespace", "defaultServiceAccount"],
                server=TEXT,
                namespace=TEXT,
                defaultServiceAccount=TEXT,
            )
        ),
    ),
    "ApplicationSet": table(
        ["generators", "template"],
        goTemplate={"type": "boolean"},
        goTemplateOptions=array(TEXT),
        generators=array(
            table(
                ["git"],
                git=table(
                    ["repoURL", "revision", "directories"],
                    repoURL=TEXT,
                    revision=TEXT,
                    directories=array(table(["path"], path=TEXT)),
                ),
            )
        ),
        template=table(
            ["metadata", "spec"],
            metadata=table(["name"], name=TEXT),
            spec=table(
                ["project", "source", "destination", "syncPolicy"],
                project=TEXT,
                source=table(
                    ["repoURL", "targetRevision", "path", "directory"],
                    repoURL=TEXT,
                    targetRevision=TEXT,
                    path=TEXT,
                    directory=table(["include"], include=TEXT),
                ),
                destination=table(["server", "namespace"], server=TEXT, namespace=TEXT),
                syncPolicy=table(
                    ["automated", "retry"],
                    automated=table(["prune", "selfHeal"], prune={"type": "boolean"}, selfHeal={"type": "boolean"}),
                    retry=table(["limit", "backoff"], limit={"type": "integer"}, backoff={"type": "object"}),
                ),
            ),
        ),
    ),
    "HTTPRoute": table(
        ["parentRefs", "hostnames", "rules"],
        parentRefs=array(table(["name"], name=TEXT, namespace=TEXT, sectionName=TEXT)),
        hostnames=array(TEXT),
        rules=array(
            table(["backendRefs"], backendRefs=array(table(["name", "port"], name=TEXT, port={"type": "integer"})))
        ),
    ),
}


@cache
def validator(version: str, kind: str, api: str) -> Draft202012Validator:
    """The strict validator of a kind; what kubernetes-validate makes anew for each object is made once."""
    directory = SCHEMAS / f"v{version}.0-local-strict"
    name = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = json.loads((directory / f"{kind.lower()}-{name}.json").read_text())
    definitions = Resource.from_contents(_definitions(directory))
    registry = definitions @ (Resource.from_contents(schema) @ Registry())
    return Draft202012Validator(schema, registry=registry)


@cache
def _definitions(directory: Path) -> Any:
    return json.loads((directory / "_definitions.json").read_text())


def problems(each: dict[str, Any], version: str) -> list[str]:
    """What the strict schema of Kubernetes `version`, or ours of a custom kind, says against an object."""
    if each["kind"] in CUSTOM:
        checker, value = Draft202012Validator(CUSTOM[each["kind"]]), each["spec"]
    else:
        checker, value = validator(version, each["kind"], each["apiVersion"]), each
    return [f"{each['kind']}: {error.json_path}: {error.message}" for error in checker.iter_errors(value)]


VALIDATE = Path(__file__).parent / "validate_custom.mjs"
DEFINITIONS = Path(__file__).parents[2] / "build/definitions"
has_definitions = shutil.which("node") is not None and (DEFINITIONS / "node_modules").is_dir()


def defined_problems(objects: list[dict[str, Any]]) -> list[str]:
    """What the published definitions of custom kinds say against each object; nothing where all is right."""
    argv = ["node", "--input-type=module", "--eval", VALIDATE.read_text()]
    done = subprocess.run(argv, input=json.dumps(objects), cwd=DEFINITIONS, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))
