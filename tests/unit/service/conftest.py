"""The platform of the example, and a desk on which services are written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from piolet.service import Breach, Manifests, Platform, ServiceFile, check, read, rendered
from piolet.service import platform as platforms

EXAMPLES = Path(__file__).parents[3] / "examples/04-services"
TODAY = date(2027, 1, 15)
IMAGE = f"ghcr.io/example/web@sha256:{'a' * 64}"
RIGHT = f"""name = "web"
project = "climate"
image = "{IMAGE}"
port = 8080
expires = 2027-06-30
health = {{ path = "/" }}
"""


@dataclass
class Desk:
    """Where a user writes a service."""

    directory: Path
    platform: Platform
    right: str = RIGHT

    def read(self, text: str) -> ServiceFile:
        path = self.directory / "service.toml"
        path.write_text(text)
        return read(path)

    def check(self, text: str) -> list[Breach]:
        return check(self.read(text), self.platform, TODAY)

    def render(self, text: str) -> Manifests:
        file = self.read(text)
        return rendered(file.service, self.platform, file.contents)

    def objects(self, text: str) -> dict[str, dict]:
        return {each["kind"]: each for each in self.render(text).objects}


@pytest.fixture(scope="session")
def platform() -> Platform:
    return platforms.read(EXAMPLES / "platform.toml")


@pytest.fixture
def desk(tmp_path: Path, platform: Platform) -> Desk:
    return Desk(tmp_path, platform)


@pytest.fixture
def right() -> str:
    """A service that is right; more keys and tables may be written below it."""
    return RIGHT
