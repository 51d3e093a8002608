"""Deploying through a real git server over HTTP."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from git_server import git_server

from piolet.cli.main import command
from piolet.core.errors import ConfigError, PioletError, Refused, UsageError
from piolet.service import publishing, read, rendered
from piolet.service.accounting import as_csv, as_page
from piolet.service.estimating import Cost, monthly
from piolet.service.expiring import expire
from piolet.service.listing import deployed
from piolet.service.platform import GitOps
from piolet.service.publishing import Change, deployment, named, preview, publish, removal
from piolet.service.rewriting import renewed
from piolet.service.statements import Sources, statements
from piolet.service.verifying import verified

EXAMPLES = Path(__file__).parents[3] / "examples/04-services"
TODAY = date(2027, 1, 15)

PROTECTED = """#!/bin/sh
[ "$1" != refs/heads/main ] || { echo "main is protected" >&2; exit 1; }
"""


class Hosted:
    """A bare repository on the server, looked at from the server's side."""

    def __init__(self, directory, url):
        self.directory = directory
        self.gitops = GitOps(url=f"{url}/{directory.name}")

    def git(self, *arguments):
        argv = ["git", "-C", str(self.directory), *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def files(self, branch="main"):
        return set(self.git("ls-tree", "-r", "--name-only", branch).split())

    def commits(self, branch="main"):
        return int(self.git("rev-list", "--count", branch))

    def show(self, path, branch="main"):
        return self.git("show", f"{branch}:projects/{path}")

    def hook(self, name, text):
        path = self.directory / "hooks" / name
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("git")
    with git_server(root) as url:
        yield root, url


@pytest.fixture
def hosted(server, tmp_path, monkeypatch):
    """A repository with one commit, and a user whom git knows."""
    configuration = tmp_path / "gitconfig"
    configuration.write_text("[user]\nname = Ada Climber\nemail = ada@example.org\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    root, url = server
    directory = root / f"{tmp_path.name}.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(directory)], check=True)
    found = Hosted(directory, url)
    for key, value in (("http.receivepack", "true"), ("receive.autogc", "false")):
        found.git("config", key, value)
    tree = found.git("hash-object", "-w", "-t", "tree", "/dev/null").strip()
    commit = found.git("commit-tree", "-m", "Begin", tree)
    found.git("update-ref", "refs/heads/main", commit.strip())
    return found


def change(project="climate", service="web", **files):
    return Change(project, service, {f"{name}.yaml": text for name, text in files.items()}, f"Deploy {service}\n")


def test_a_deployment_is_one_commit_that_verify_accepts(hosted, desk, tmp_path):
    done = publish(deployment(desk.read(desk.right), desk.platform, TODAY), hosted.gitops)
    assert (done.tries, done.branch, hosted.commits()) == (1, "main", 2)
    assert hosted.git("rev-parse", "main").strip() == done.commit
    assert hosted.show("climate/web/service.toml") == desk.right
    said = hosted.git("log", "-1", "--format=%an <%ae>%n%B", "main")
    assert said.startswith("Ada Climber <ada@example.org>\nDeploy climate/web\n\nImage: ghcr.io/example/web@sha256:aaa")
    assert "until 2027-06-30" in said
    subprocess.run(["git", "clone", "--quiet", hosted.gitops.url, str(tmp_path / "ci")], check=True)
    count, broken = verified(tmp_path / "ci/projects", desk.platform, TODAY)
    assert (count, broken) == (len(desk.objects(desk.right)), [])


def test_what_is_there_already_is_no_commit(hosted):
    publish(change(a="1"), hosted.gitops)
    assert publish(change(a="1"), hosted.gitops).commit == ""
    assert hosted.commits() == 2


def test_a_deployment_replaces_its_own_directory_and_nothing_else(hosted):
    for service in ("web", "web-two"):
        publish(change(service=service, a="1", b="2"), hosted.gitops)
    publish(change(a="3"), hosted.gitops)
    two = {"projects/climate/web-two/a.yaml", "projects/climate/web-two/b.yaml"}
    assert hosted.files() == two | {"projects/climate/web/a.yaml"}
    publish(removal("climate", "web"), hosted.gitops)
    assert hosted.files() == two


def test_a_service_that_is_not_there_cannot_be_removed(hosted, desk):
    publish(deployment(desk.read(desk.right), desk.platform, TODAY), hosted.gitops)
    with pytest.raises(UsageError, match="no service climate/wep") as raised:
        publish(removal("climate", "wep"), hosted.gitops)
    assert "climate/web" in raised.value.remedy


def test_a_preview_is_the_patch_and_changes_nothing(hosted):
    publish(change(a="old\n"), hosted.gitops)
    patch = preview(change(a="new\n"), hosted.gitops)
    assert "-old\n+new\n" in patch
    assert (hosted.show("climate/web/a.yaml"), hosted.commits()) == ("old\n", 2)


@pytest.mark.parametrize("moment", ["pre-commit", "pre-push"])
@pytest.mark.parametrize("theirs", ["web", "other"])
def test_whoever_comes_second_writes_again_onto_what_the_first_left(hosted, tmp_path, moment, theirs):
    rival = publish(change(service=theirs, a="theirs"), hosted.gitops, "rival").commit
    _at(moment, tmp_path, f"git --git-dir {hosted.directory} update-ref refs/heads/main {rival}")
    done = publish(change(a="ours"), hosted.gitops, sleep=lambda _: None)
    assert (done.tries, hosted.commits()) == (2, 3)
    assert hosted.git("rev-parse", "main~1").strip() == rival
    assert hosted.show("climate/web/a.yaml") == "ours"
    assert hosted.show(f"climate/{theirs}/a.yaml", rival) == "theirs"
    assert f"projects/climate/{theirs}/a.yaml" in hosted.files()


def _at(moment, tmp_path, does):
    """Let a hook of the user's do something once."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / moment).write_text(f"#!/bin/sh\nmkdir {tmp_path}/once 2>/dev/null || exit 0\n{does}\n")
    (hooks / moment).chmod(0o755)
    with (tmp_path / "gitconfig").open("a") as configuration:
        configuration.write(f"[core]\nhooksPath = {hooks}\n")


def test_a_race_that_never_ends_is_given_up(hosted):
    (hosted.directory / "refs/heads/main.lock").touch()
    waits = []
    with pytest.raises(PioletError, match="others pushed faster, 5 times"):
        publish(change(a="1"), hosted.gitops, tries=5, sleep=waits.append)
    assert len(waits) == 5
    assert all(0 <= wait <= publishing.LONGEST_WAIT_S for wait in waits)
    assert hosted.commits() == 1


def _all_at_once(hosted, count):
    changes = [change(f"project{number % 5}", f"service{number}", a=str(number)) for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        done = list(pool.map(lambda each: publish(each, hosted.gitops), changes))
    assert hosted.files() == {str(each.directory / "a.yaml") for each in changes}
    assert hosted.commits() == count + 1
    kept = set(hosted.git("rev-list", "main").split())
    assert all(each.commit in kept for each in done)
    for each in changes:
        assert hosted.show(f"{each.project}/{each.service}/a.yaml") == each.files["a.yaml"]
    return max(each.tries for each in done)


def test_eight_deployments_at_once_lose_nothing(hosted):
    assert _all_at_once(hosted, 8) < publishing.TRIES


@pytest.mark.slow
def test_fifty_deployments_at_once_lose_nothing(hosted):
    assert _all_at_once(hosted, 50) < publishing.TRIES


def test_a_protected_branch_is_one_clear_error_and_a_branch_is_the_way_out(hosted):
    hosted.hook("update", PROTECTED)
    with pytest.raises(Refused, match="main is protected") as raised:
        publish(change(a="1"), hosted.gitops)
    assert "--branch" in raised.value.remedy
    first = publish(change(a="1"), hosted.gitops, "new-web")
    publish(change(service="other", b="2"), hosted.gitops, "new-web")
    assert hosted.git("rev-parse", "new-web~1").strip() == first.commit
    assert (hosted.commits(), hosted.commits("new-web")) == (1, 3)


def test_a_link_in_the_repository_leads_nowhere(hosted, tmp_path):
    outside = tmp_path / "outside/web"
    outside.mkdir(parents=True)
    (outside / "kept").touch()
    work = tmp_path / "work"
    subprocess.run(["git", "clone", "--quiet", hosted.gitops.url, str(work)], check=True)
    (work / "projects").mkdir()
    (work / "projects/climate").symlink_to(outside.parent)
    for argv in (["add", "."], ["commit", "--quiet", "-m", "Link"], ["push", "--quiet"]):
        subprocess.run(["git", "-C", str(work), *argv], check=True, capture_output=True)
    for each in (change(a="1"), removal("climate", "web")):
        with pytest.raises(PioletError):
            publish(each, hosted.gitops)
    assert list(outside.iterdir()) == [outside / "kept"]


@pytest.mark.parametrize("line", ["# token: TOKEN", 'description = "the token is TOKEN"', 'env = { A = "TOKEN" }'])
def test_a_secret_anywhere_in_the_file_is_refused(desk, line):
    token = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6"
    with pytest.raises(Refused, match="secret"):
        deployment(desk.read(f"{line.replace('TOKEN', token)}\n{desk.right}"), desk.platform, TODAY)


def test_references_to_secrets_are_none(desk):
    text = f'{desk.right}[secrets]\nDB_PASSWORD = "climate/db#password"\n'
    assert "service.toml" in deployment(desk.read(text), desk.platform, TODAY).files


@pytest.mark.parametrize("example", ["by-tag", "password-in-git", "root-everywhere"])
def test_what_breaks_a_policy_is_not_deployed(platform, example):
    with pytest.raises(Refused, match="breaks"):
        deployment(read(EXAMPLES / example), platform, TODAY)


@pytest.mark.parametrize(
    ("url", "branch", "said"),
    [
        ("{}-missing", "", "cannot reach the repository"),
        ("http://ada:hunter2@127.0.0.1/x.git", "", "holds a password"),
        ("{}", "a..b", "cannot be the name of a branch"),
    ],
)
def test_a_wrong_address_or_name_is_one_clear_error(hosted, url, branch, said):
    gitops = GitOps(url=url.format(hosted.gitops.url))
    with pytest.raises(PioletError, match=said) as raised:
        publish(change(a="1"), gitops, branch)
    assert raised.value.remedy
    assert "hunter2" not in str(raised.value)


def test_a_missing_branch_is_named(hosted):
    with pytest.raises(PioletError, match='the repository has no branch "trunk"'):
        publish(change(a="1"), GitOps(url=hosted.gitops.url, branch="trunk"))


def test_git_must_know_the_users_name(hosted, tmp_path):
    (tmp_path / "gitconfig").write_text("")
    with pytest.raises(UsageError, match="whose commit") as raised:
        publish(change(a="1"), hosted.gitops)
    assert "user.email" in raised.value.remedy
    assert hosted.commits() == 1


@pytest.mark.parametrize("text", ["web", "climate/../x", "/climate/web", "climate/web/", "climate/WEB", ""])
def test_only_names_become_paths(text):
    with pytest.raises(UsageError):
        named(text)


def test_a_file_that_cannot_be_read_is_listed_as_such(hosted):
    publish(Change("climate", "web", {"service.toml": "name = 3\n"}, "Break\n"), hosted.gitops)
    commit, [listed] = deployed(hosted.gitops)
    assert commit == hosted.git("rev-parse", "main").strip()
    assert (listed.project, listed.service) == ("climate", "web")
    assert "problems" in listed.problem


def test_a_renewal_keeps_the_file_and_stays_within_policy(desk):
    text = desk.right.replace("2027-06-30", "2027-06-30  # the project's end")
    file = renewed(desk.read(text), date(2027, 9, 1))
    assert file.source == text.replace("2027-06-30", "2027-09-01")
    assert "2027-09-01" in deployment(file, desk.platform, TODAY).files["deployment.yaml"]
    with pytest.raises(Refused, match="lease-length"):
        deployment(renewed(file, TODAY + timedelta(days=366)), desk.platform, TODAY)
    with pytest.raises(ConfigError, match="no line with this key"):
        renewed(desk.read(text.replace("expires", "# expires")), TODAY)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", Cost((0, 0), (730, 730), 0)),
        ("replicas = 3\nresources = { cpus = 0.5 }", Cost((0, 0), (1095, 1095), 0)),
        ("replicas = { min = 1, max = 4 }", Cost((0, 0), (730, 2920), 0)),
        ('run_on = "gpu"\nresources = { cpus = 8, gpus = 2 }', Cost((1460, 1460), (5840, 5840), 0)),
        (
            'storage.a = { path = "/a", size = "512MiB" }\nstorage.b = { path = "/b", size = "1TiB" }\nreplicas = 2',
            Cost((0, 0), (1460, 1460), 1024.5),
        ),
        ('storage.a = { path = "/a", size = "10GiB", kind = "fast" }\nreplicas = 3', Cost((0, 0), (2190, 2190), 30)),
    ],
)
def test_the_cost_of_a_month_is_what_the_manifests_reserve(desk, more, expected):
    assert monthly(desk.render(desk.right + more).objects) == expected


def test_a_scheduled_service_takes_between_nothing_and_one_pod(platform):
    file = read(EXAMPLES / "nightly-index")
    cost = monthly(rendered(file.service, platform, file.contents).objects)
    assert cost.cpu_hours == (0, 730 * file.service.resources.cpus)


def test_the_commands_from_edit_to_removal(hosted, desk, monkeypatch):
    expires = datetime.now(UTC).date() + timedelta(days=30)
    path = desk.directory / "service.toml"
    path.write_text(desk.right.replace("2027-06-30", expires.isoformat()))
    platform = desk.directory / "platform.toml"
    text = (EXAMPLES / "platform.toml").read_text()
    platform.write_text(text.replace("https://git.example.org/platform/services.git", hosted.gitops.url))
    monkeypatch.setenv("PIOLET_SERVICE_PLATFORM", str(platform))

    def said(*arguments, exits=0):
        done = CliRunner().invoke(command, ["service", *map(str, arguments)], standalone_mode=False)
        assert (done.exception, done.return_value or 0) == (None, exits)
        return done.stdout

    assert "+++ b/projects/climate/web/service.toml" in said("diff", path, exits=1)
    assert "+++ b/projects/climate/web/service.toml" in said("deploy", path, "--guard", "--dry-run")
    assert hosted.commits() == 1
    assert "projects/climate/web: pushed " in said("deploy", path)
    assert said("diff", path) == ""
    assert said("deploy", path) == "projects/climate/web: nothing to change on main\n"
    assert "-expires = " in said("renew", path, "--days", 60, "--dry-run")
    assert str(expires) in path.read_text()
    assert "pushed" in said("renew", path, "--days", 60)
    later = (expires + timedelta(days=30)).isoformat()
    assert hosted.show("climate/web/service.toml") == path.read_text() == desk.right.replace("2027-06-30", later)
    [listed] = json.loads(said("status", "--format", "json"))
    assert (listed["project"], listed["service"], listed["expires"], listed["problem"]) == ("climate", "web", later, "")
    assert json.loads(said("status", "genome", "--format", "json")) == []
    assert later in said("status")
    assert json.loads(said("cost", path, "--format", "json"))["cpu_hours"] == [730, 730]
    assert "CPU-hours" in said("cost", path)
    assert "deleted file" in said("rm", "climate/web", "--dry-run")
    assert "to goodbye" in said("rm", "climate/web", "--branch", "goodbye")
    assert "projects/climate/web/service.toml" in hosted.files()
    said("rm", "climate/web", "--repository", hosted.gitops.url)
    assert hosted.files() == set()


LATER = date(2027, 7, 1)
"""The day after the lease of the right service is over."""


def test_a_lease_that_is_over_is_a_commit_to_zero_and_others_are_left(hosted, desk, tmp_path):
    scaled = desk.right.replace('"web"', '"scaled"', 1).replace("port = 8080", "port = 8080\nreplicas = { max = 3 }")
    other = desk.right.replace('"web"', '"other"', 1).replace("2027-06-30", "2027-07-10")
    nightly = desk.right.replace('"web"', '"nightly"', 1).replace("port = 8080", 'schedule = "0 3 * * *"')
    nightly = nightly.replace('health = { path = "/" }\n', "")
    for text in (desk.right, scaled, other, nightly):
        publish(deployment(desk.read(text), desk.platform, TODAY), hosted.gitops)
    before = hosted.show("climate/other/deployment.yaml")
    preview_of = expire(hosted.gitops, LATER, 14, dry_run=True)
    assert "+  replicas: 0" in preview_of.published.patch
    assert hosted.commits() == 5
    done = expire(hosted.gitops, LATER, 14)
    assert [each.service for each in done.over] == ["nightly", "scaled", "web"]
    assert [each.service for each in done.soon] == ["other"]
    assert hosted.commits() == 6
    assert "replicas: 0" in hosted.show("climate/web/deployment.yaml")
    assert "suspend: true" in hosted.show("climate/nightly/cronjob.yaml")
    assert "projects/climate/scaled/horizontalpodautoscaler.yaml" not in hosted.files()
    assert hosted.show("climate/other/deployment.yaml") == before
    assert expire(hosted.gitops, LATER, 14).published.commit == ""
    subprocess.run(["git", "clone", "--quiet", hosted.gitops.url, str(tmp_path / "ci")], check=True)
    assert verified(tmp_path / "ci/projects", desk.platform, LATER)[1] == []


def test_a_renewal_wakes_what_was_stopped(hosted, desk):
    publish(deployment(desk.read(desk.right), desk.platform, TODAY), hosted.gitops)
    expire(hosted.gitops, LATER, 0)
    publish(deployment(renewed(desk.read(desk.right), date(2027, 9, 1)), desk.platform, LATER), hosted.gitops)
    assert "replicas: 1" in hosted.show("climate/web/deployment.yaml")


def test_an_empty_repository_has_no_leases(hosted):
    assert expire(hosted.gitops, LATER, 14).over == ()


def deployed_at(hosted, desk, monkeypatch, when, text):
    """Deploy as if it were `when`: what the committer's clock says is what statements go by."""
    monkeypatch.setenv("GIT_COMMITTER_DATE", f"{when}T00:00:00+00:00")
    publish(deployment(desk.read(text), desk.platform, TODAY), hosted.gitops)


def test_a_statement_is_requests_by_time_from_the_history(hosted, desk, monkeypatch):
    volume = '[storage.data]\npath = "/data"\nsize = "73GiB"\n'
    deployed_at(hosted, desk, monkeypatch, "2027-01-11", f"{desk.right}{volume}")
    twice = desk.right.replace("port = 8080", "port = 8080\nreplicas = 2") + volume
    deployed_at(hosted, desk, monkeypatch, "2027-01-21", twice)
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2027-02-05T12:00:00+00:00")
    publish(removal("climate", "web"), hosted.gitops)
    january, february, march = (
        statements(desk.platform, Sources(hosted.gitops), month, datetime(2027, 4, 1, tzinfo=UTC), Silent())
        for month in ("2027-01", "2027-02", "2027-03")
    )
    (line,) = january[0].lines
    assert (line.project, line.service, line.runs_on) == ("climate", "web", "kubernetes")
    assert line.cpu_hours == pytest.approx(10 * 24 + 2 * 11 * 24)
    assert line.gib_months == pytest.approx(73 * 21 * 24 / 730)
    assert february[0].lines[0].cpu_hours == pytest.approx(2 * 4.5 * 24)
    assert march[0].lines[0].cpu_hours == 0
    assert january[1].lines == ()


def test_a_statement_ends_now_and_warns(hosted, desk, monkeypatch):
    deployed_at(hosted, desk, monkeypatch, "2027-06-01", desk.right)
    tight = desk.platform.projects["climate"].model_copy(update={"cpu_hours_per_month": 100})
    platform = desk.platform.model_copy(update={"projects": {"climate": tight}})
    now = datetime(2027, 6, 6, tzinfo=UTC)
    (found,) = statements(platform, Sources(hosted.gitops), "", now, Silent())
    assert found.month == "2027-06"
    assert found.lines[0].cpu_hours == pytest.approx(5 * 24)
    assert found.warnings == ("120.0 CPU-hours of 100 a month", "the lease of web ends on 2027-06-30")
    text = as_csv([found])
    assert text.splitlines()[0].startswith("month,project,service,runs_on,gpu_hours")
    assert text.splitlines()[1].startswith("2027-06,climate,web,kubernetes,0.0,0.0,120.0")
    assert "120.0 CPU-hours of 100 a month" in as_page([found])


class Silent:
    """A runner that is not asked: no project of the platform has an account on Slurm."""


def test_the_command_prints_statements(hosted, desk, monkeypatch, tmp_path):
    today = datetime.now(UTC).date()
    text = desk.right.replace("2027-06-30", str(today + timedelta(days=200)))
    publish(deployment(desk.read(text), desk.platform, today), hosted.gitops)
    monkeypatch.setenv("PIOLET_SERVICE_PLATFORM", str(EXAMPLES / "platform.toml"))
    words = ["service", "account", "--repository", hosted.gitops.url, "--page", str(tmp_path / "page.html")]
    done = CliRunner().invoke(command, [*words, "--format", "csv"])
    assert done.exit_code == 0, done.output
    assert "climate,web,kubernetes" in done.output
    assert "<h2>climate, " in (tmp_path / "page.html").read_text()
    assert CliRunner().invoke(command, [*words, "2027-13"]).exit_code != 0
