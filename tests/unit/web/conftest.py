from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import made_logbooks
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from piolet.core.files import write_text
from piolet.core.settings import Settings, WebSettings
from piolet.logbook.layout import Logbook
from piolet.logbook.records import Outcome, write_outcome
from piolet.web.app import build
from piolet.web.login import PROXY_GROUPS, PROXY_SECRET, PROXY_USER

SECRET = "what the proxy knows"  # noqa: S105 - of the tests' own proxy
ADDRESS = "http://127.0.0.1"


@dataclass(frozen=True, slots=True)
class Site:
    """An application behind a proxy, and the logbooks that it shows: job 1 is ada's, job 2 is bob's of account ml."""

    app: Starlette
    root: Path

    def visitor(self, user: str, *groups: str) -> TestClient:
        headers = {PROXY_SECRET: SECRET, PROXY_USER: user, PROXY_GROUPS: ",".join(groups)}
        return TestClient(self.app, base_url=ADDRESS, headers=headers, follow_redirects=False)


@pytest.fixture(scope="session")
def two_jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("web")
    small_job(root, "1", user="ada")
    small_job(root, "2", user="bob", account="ml")
    return root


@pytest.fixture
def site(tmp_path: Path, two_jobs: Path) -> Site:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    root = tmp_path / "root"
    shutil.copytree(two_jobs, root)
    web = WebSettings(login="proxy", secret=secret, operators=("root", "@staff"))
    return Site(build(Settings(web=web), root=root), root)


def small_job(root: Path, job_id: str, *, user: str, name: str = "train", account: str = "") -> Logbook:
    """A job of two nodes that computed for 20 seconds."""
    record = made_logbooks.job(["node1", "node2"], 1, 20, job_id=job_id, user=user, account=account, name=name)
    rows = made_logbooks.constant(
        record, 20, sm_active=0.8, tensor_active=0.5, dram_active=0.4, power_w=400.0, gr_engine_active=0.9
    )
    logbook = made_logbooks.write(root, record, rows)
    write_outcome(logbook.outcome, Outcome("COMPLETED", 0, ended_ns=record.program_ended_ns))
    write_text(logbook.stacks / "node1.txt", "== rank 0")
    return logbook


@pytest.fixture
def make_job() -> Callable[..., Logbook]:
    return small_job
