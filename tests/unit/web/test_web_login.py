"""The ways to log in, each with the real thing: a link, PAM with a real user, an OpenID provider on loopback."""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from piolet.core.settings import Settings, WebSettings
from piolet.web.app import build
from piolet.web.limits import Limits
from piolet.web.login import TokenLogin

USER, PASSWORD = "piolet-web-test", "correct horse battery"
LOCAL = "http://127.0.0.1"


DEFAULT = WebSettings()


def token_site(root: Path, web: WebSettings = DEFAULT) -> tuple[TestClient, TokenLogin]:
    login = TokenLogin(Limits(web))
    login.announce(LOCAL)
    return TestClient(build(Settings(web=web), login=login, root=root), base_url=LOCAL, follow_redirects=False), login


def test_a_stranger_is_asked_to_log_in(tmp_path: Path) -> None:
    browser, _ = token_site(tmp_path)
    assert browser.get("/jobs/lab/1?from=2&to=3").headers["location"] == "/login"
    assert browser.get("/", headers={"sec-fetch-mode": "cors"}).status_code == 401
    assert browser.get("/health").text == "ok"


def test_a_link_works_once_and_leads_where_one_wanted_to_go(tmp_path: Path) -> None:
    browser, login = token_site(tmp_path)
    browser.get("/?text=x")
    link = login.link
    assert browser.get(link).headers["location"] == "/?text=x"
    assert browser.get("/").status_code == 200
    stranger = TestClient(browser.app, base_url=LOCAL, follow_redirects=False)
    assert stranger.get(link).status_code == 403
    assert stranger.get(login.link).status_code == 303


@pytest.mark.parametrize(("certificate", "secure"), [(None, False), (Path("server.pem"), True)])
def test_the_cookie_is_for_this_server_alone(tmp_path: Path, certificate: Path | None, *, secure: bool) -> None:
    browser, login = token_site(tmp_path, WebSettings(certificate=certificate))
    said = browser.get(login.link).headers["set-cookie"].lower().split("; ")
    assert {"httponly", "samesite=lax", "path=/"} <= {*said}
    assert ("secure" in said) == secure
    assert not [each for each in said if each.startswith("domain")]


def test_logging_out_forgets(tmp_path: Path) -> None:
    browser, login = token_site(tmp_path)
    browser.get(login.link)
    browser.post("/logout")
    assert browser.get("/").headers["location"] == "/login"


def test_a_forged_cookie_is_nobodys(tmp_path: Path) -> None:
    browser, _ = token_site(tmp_path)
    browser.cookies.set("piolet", "eyJ1c2VyIjogInJvb3QifQ==.aaaa.bbbb")
    assert browser.get("/").status_code == 303


def test_guessing_tokens_is_slowed(tmp_path: Path) -> None:
    browser, _ = token_site(tmp_path, WebSettings(logins_per_minute=3))
    said = [browser.get(f"/login?token={guess}").status_code for guess in range(5)]
    assert said == [403, 403, 403, 429, 429]


@pytest.fixture
def system_user() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("a user with a password can be made by root only")
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", USER], check=True)
    subprocess.run(["chpasswd"], input=f"{USER}:{PASSWORD}\n", text=True, check=True)
    yield USER
    subprocess.run(["userdel", "--force", USER], check=True, capture_output=True)


def test_pam_knows_the_users_of_the_machine(system_user: str, tmp_path: Path) -> None:
    settings = Settings(web=WebSettings(login="pam", logins_per_minute=4))
    browser = TestClient(build(settings, root=tmp_path), base_url=LOCAL, follow_redirects=False)

    def attempt(user: str, password: str) -> int:
        return browser.post("/login", data={"user": user, "password": password}).status_code

    assert browser.get("/login").status_code == 200
    assert [attempt(system_user, "wrong"), attempt("nobody-here", PASSWORD), attempt(system_user, "")] == [403] * 3
    assert browser.get("/").headers["location"] == "/login"
    assert attempt(system_user, PASSWORD) == 303
    assert system_user in browser.get("/").text
    assert attempt(system_user, PASSWORD) == 429


def test_an_openid_provider_says_who_it_is(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the provider of the test uses parts of its library that are to be replaced
        import httpx2  # noqa: PLC0415 - imported with the provider
        import oidc_provider_mock  # noqa: PLC0415 - it warns on import

        ada = oidc_provider_mock.User(sub="1", claims={"preferred_username": "ada", "groups": ["staff"]})
        with oidc_provider_mock.run_server_in_thread(user_claims=[ada]) as provider:
            issuer = f"http://127.0.0.1:{provider.server_port}"
            browser = openid_site(tmp_path, issuer)
            asked = browser.get("/login").headers["location"]
            assert asked.startswith(f"{issuer}/oauth2/authorize")
            assert "code_challenge_method=S256" in asked
            allowed = httpx2.post(asked, data={"sub": "1"}).headers["location"]
            back = urlsplit(allowed)
            assert browser.get(f"{back.path}?{back.query}").status_code == 303
            assert "ada, operator" in browser.get("/").text
            replayed = TestClient(browser.app, base_url=LOCAL, follow_redirects=False)
            assert replayed.get(f"{back.path}?{back.query}").status_code == 403


def openid_site(root: Path, issuer: str) -> TestClient:
    secret = root / "secret"
    secret.write_text("client secret")
    secret.chmod(0o600)
    web = WebSettings(login="oidc", oidc_issuer=issuer, oidc_client="piolet", secret=secret, operators=("@staff",))
    return TestClient(build(Settings(web=web), root=root), base_url=LOCAL, follow_redirects=False)
