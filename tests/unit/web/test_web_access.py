"""Who sees what: strangers nothing, users their own and their projects' jobs, operators all."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from piolet.core.errors import ConfigError, Refused, UsageError
from piolet.core.settings import Settings, WebSettings
from piolet.web import app
from piolet.web.limits import Limits
from piolet.web.login import PROXY_SECRET, PROXY_USER, login_of

JOB_PAGES = [
    route.path
    for route in app.routes()
    if isinstance(route, Route) and "{job}" in route.path and "GET" in (route.methods or ())
]


def filled(path: str, job: str) -> str:
    names = {"cluster": "lab", "job": job, "node": "node1", "name": "job.json"}
    query = "?metric=gpu.power_w" if path.endswith("/series") else ""
    return path.format(**names) + query


def test_the_list_has_ones_own_jobs(site: Any) -> None:
    assert "lab/1" in site.visitor("ada").get("/").text
    assert "lab/2" not in site.visitor("ada").get("/").text


def test_a_project_shares_its_jobs(site: Any) -> None:
    assert "lab/2" in site.visitor("ada", "ml").get("/").text


@pytest.mark.parametrize("operator", [("root",), ("eve", "staff")])
def test_operators_see_all(site: Any, operator: tuple[str, ...]) -> None:
    page = site.visitor(*operator).get("/").text
    assert "lab/1" in page
    assert "lab/2" in page


@pytest.mark.parametrize("path", JOB_PAGES)
def test_every_page_of_a_job_is_closed_to_others(site: Any, path: str) -> None:
    answer = site.visitor("ada").get(filled(path, "2"))
    assert answer.status_code == 404
    assert "lab/2 that ada may see" in answer.text
    missing = site.visitor("ada").get(filled(path, "999"))
    assert missing.text.replace("lab/999", "lab/2") == answer.text.replace("/999", "/2"), "both must read the same"


@pytest.mark.parametrize("path", [path for path in JOB_PAGES if not path.endswith("/live")])
def test_every_page_of_a_job_is_open_to_its_owner(site: Any, path: str) -> None:
    assert site.visitor("bob").get(filled(path, "2")).status_code == 200


def test_a_nodes_jobs_are_those_that_one_may_see(site: Any) -> None:
    def shown(user: str, *groups: str) -> str:
        return site.visitor(user, *groups).get("/nodes/lab/node1").text

    assert ("lab/1" in shown("ada"), "lab/2" in shown("ada")) == (True, False)
    assert ("lab/1" in shown("root"), "lab/2" in shown("root")) == (True, True)
    assert site.visitor("eve").get("/nodes/lab/node1").status_code == 404
    assert site.visitor("root").get("/nodes/lab/nowhere").status_code == 404


@pytest.mark.parametrize("user", ["ada", "bob", "root"])
def test_nobody_who_logs_in_runs_a_notebook_with_the_servers_rights(site: Any, user: str) -> None:
    answer = site.visitor(user).post("/jobs/lab/2/notebook", headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 404
    assert "opens no notebooks" in answer.text


def test_an_ended_job_says_so_to_who_follows_it(site: Any) -> None:
    assert "event: ended" in site.visitor("bob").get("/jobs/lab/2/live").text


@pytest.mark.parametrize("path", ["/", *(filled(path, "1") for path in JOB_PAGES)])
@pytest.mark.parametrize("headers", [{}, {PROXY_USER: "ada"}, {PROXY_USER: "ada", PROXY_SECRET: "guessed"}])
def test_without_the_proxys_secret_nobody_is_anybody(site: Any, path: str, headers: dict[str, str]) -> None:
    stranger = TestClient(site.app, base_url="http://127.0.0.1", headers=headers, follow_redirects=False)
    assert stranger.get(path).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/lab/..%2f..%2fsecret",
        "/jobs/../2",
        "/jobs/lab/.",
        "/static/../../pyproject.toml",
        "/static/%2e%2e/app.py",
    ],
)
def test_paths_lead_nowhere_else(site: Any, path: str) -> None:
    assert site.visitor("ada").get(path).status_code == 404


def test_a_link_to_anothers_file_stays_out_of_the_archive(site: Any, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("private")
    (site.root / "lab" / "1" / "telemetry" / "stolen.parquet").symlink_to(tmp_path / "private")
    os.link(site.root / "lab" / "1" / "job.json", site.root / "lab" / "1" / "copy.json")
    answer = site.visitor("ada").get("/jobs/lab/1/logbook.tar")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        names = archive.getnames()
        found = archive.extractfile("lab-1/job.json")
        assert found
        assert found.read() == (site.root / "lab" / "1" / "job.json").read_bytes()
    assert "lab-1/copy.json" in names
    assert not any("stolen" in name for name in names)


def test_what_a_job_says_of_itself_is_text(site: Any, make_job: Any) -> None:
    make_job(site.root, "3", user="ada", name="<script>alert(1)</script>")
    for path in ("/", "/jobs/lab/3"):
        page = site.visitor("ada").get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


def test_the_report_runs_apart(site: Any) -> None:
    (site.root / "lab" / "1" / "report.html").write_text("<script>steal()</script>")
    answer = site.visitor("root").get("/jobs/lab/1/report")
    assert "steal" not in answer.text
    assert "sandbox allow-scripts" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/jobs/lab/1", "/jobs/lab/999", "/nowhere", "/static/app.js"])
def test_every_answer_has_the_security_headers(site: Any, path: str) -> None:
    headers = site.visitor("ada").get(path).headers
    assert "script-src 'self';" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"origin": "http://127.0.0.1"}, 303),
    ],
)
def test_forms_of_other_sites_are_refused(site: Any, headers: dict[str, str], status: int) -> None:
    assert site.visitor("ada").post("/logout", headers=headers).status_code == status


def test_a_name_that_was_rebound_to_this_address_is_refused(site: Any) -> None:
    assert site.visitor("ada").get("/", headers={"host": "evil.example"}).status_code == 400


def test_too_many_requests_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    settings = Settings(web=WebSettings(login="proxy", secret=secret, requests_per_minute=3))
    visitor = TestClient(app.build(settings, root=tmp_path), base_url="http://127.0.0.1", headers={PROXY_SECRET: "s"})
    said = [visitor.get("/", headers={PROXY_USER: "ada"}).status_code for _ in range(4)]
    assert said == [200, 200, 200, 429]
    assert visitor.get("/", headers={PROXY_USER: "bob"}).status_code == 200


def test_others_addresses_need_tls() -> None:
    with pytest.raises(Refused, match="without TLS"):
        app.serve(Settings(), "0.0.0.0", 0)  # noqa: S104 - refused before anything listens


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o644)
    settings = WebSettings(login="proxy", secret=secret)
    with pytest.raises(UsageError, match="others may read"):
        login_of(settings, Limits(settings))


def test_a_secret_that_is_missing_is_asked_for() -> None:
    settings = WebSettings(login="oidc")
    with pytest.raises(ConfigError, match="shared secret"):
        login_of(settings, Limits(settings))


@pytest.mark.parametrize("name", ["environment.lock.json", "outcome.json", "vet/before.jsonl"])
def test_a_record_that_is_a_link_closes_the_job(site: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "private.json").write_text('{"password": "hunter2"}')
    record = site.root / "lab" / "1" / name
    record.unlink(missing_ok=True)
    record.symlink_to(tmp_path / "private.json")
    for path in ("/jobs/lab/1", "/jobs/lab/1/report", "/compare?a=lab/1&b=lab/1"):
        answer = site.visitor("root").get(path)
        assert answer.status_code == 404
        assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "path", ["/sql?job=lab/2&q=SELECT+1", "/sql/plot?job=lab/2&q=SELECT+1", "/compare?a=lab/1&b=lab/2"]
)
def test_questions_reach_ones_own_jobs_only(site: Any, path: str) -> None:
    assert "no job lab/2 that ada may see" in site.visitor("ada").get(path).text


@pytest.mark.parametrize(
    "query", ["FROM read_text('/etc/passwd')", "COPY gpu TO '/tmp/x'", "SELECT 1; SELECT 2", "SELEC"]
)
def test_sql_reads_nothing_but_the_job(site: Any, query: str) -> None:
    page = site.visitor("ada").get("/sql", params={"job": "lab/1", "q": query})
    assert "the query cannot be run" in page.text
    assert "root:x" not in page.text


def test_sql_answers(site: Any) -> None:
    query = {"job": "lab/1", "q": "SELECT time_ns, node, power_w FROM gpu WHERE node = 'node1' ORDER BY 1"}
    ada = site.visitor("ada")
    assert "20 rows" in ada.get("/sql", params=query).text
    plot = ada.get("/sql/plot", params=query).json()
    assert plot["times"] == [float(second) for second in range(20)]
    assert [line["name"] for line in plot["lines"]] == ["power_w"]
    assert ada.get("/sql/answer.csv", params=query).text.splitlines()[0] == "time_ns,node,power_w"


def test_two_jobs_are_compared(site: Any, make_job: Any) -> None:
    make_job(site.root, "5", user="ada", name="train")
    page = site.visitor("ada").get("/compare?a=lab/1&b=lab/5").text
    assert "Steady saturation: 1.000 of before" in page
    assert "Command, nodes, code, environment, data and the time of each phase were the same" in page
