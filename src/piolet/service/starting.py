"""A new `service.toml` from a template: commented, and right but for what the site alone knows."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from pathlib import Path

from piolet.core import toml
from piolet.core.files import create_text
from piolet.service.model import Service
from piolet.service.reading import validated

TEMPLATES = Path(__file__).parent / "templates"


class Template(StrEnum):
    """What a service is; each is a file below templates/."""

    MLFLOW = "mlflow"
    VLLM = "vllm"
    SGLANG = "sglang"
    QDRANT = "qdrant"
    LABEL_STUDIO = "label-studio"
    TENSORBOARD = "tensorboard"
    WEB = "web"


def new(template: Template, path: Path, *, name: str, project: str, image: str, expires: date) -> Path:
    """Write a new service to `path` and return it.

    Raises:
        UsageError: the file exists (it is never replaced), or a value cannot stand in one.
        StorageError: it cannot be written.
    """
    content = (TEMPLATES / f"{template.value}.toml").read_text("utf-8")
    given = {"PROJECT": project, "NAME": name, "IMAGE": image, "EXPIRES": expires.isoformat()}
    for word, value in given.items():
        content = content.replace(word, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
    validated(toml.parse(content.encode("utf-8", "surrogateescape"), path), Service)
    create_text(path, content)
    return path
