"""Statements: jobs of Slurm, the gateway's usage and Prometheus, each joined to the right project."""

import time
from datetime import UTC, datetime

import httpx2
import metric_stores
import pytest

from piolet.core.errors import PioletError, UsageError
from piolet.service import accounting, statements
from piolet.service.accounting import period
from piolet.service.gateway import usage
from piolet.service.gateway.events import Tokens
from piolet.service.platform import GitOps
from piolet.tools.slurm import rows, sacct

NOW = datetime(2027, 4, 1, tzinfo=UTC)
JANUARY = period("2027-01", NOW)


def job(number, name, begin, end, *, gpus=0, nodes=1, state="COMPLETED"):
    """A row of sacct, as it prints it."""
    cells = [str(number), str(number), state, "0:0", "ada", "main", str(nodes), "node[1-9]", str(begin), str(begin)]
    cells += [str(end), "01:00:00", f"cpu=8,mem=1G,node={nodes},gres/gpu={gpus}", "None", name]
    return rows.SEPARATOR.join(cells)


def test_jobs_are_counted_within_the_month_and_by_service():
    begin = round(JANUARY.since_s)
    text = "\n".join(
        [
            job(1, "climate/chat/0", begin - 3600, begin + 7200, gpus=4),
            job(2, "climate/chat/1", begin, begin + 3600, gpus=4),
            job(3, "train.py", begin, begin + 3600, gpus=8, nodes=2),
            job(4, "genome/chat/0", begin, begin + 3600),
            job(5, "climate/chat/0", round(JANUARY.until_s) - 3600, "Unknown", gpus=1, state="RUNNING"),
            job(6, "late", "Unknown", "Unknown", state="PENDING"),
        ]
    )  # fmt: skip - a table
    lines = {line.service: line for line in accounting.of_jobs(sacct.parse(text), "climate", JANUARY)}
    assert set(lines) == {"chat", "(other jobs)"}
    assert lines["chat"].gpu_hours == pytest.approx(4 * 2 + 4 + 1)
    assert lines["chat"].node_hours == pytest.approx(4)
    assert lines["(other jobs)"].gpu_hours == pytest.approx(8)
    assert lines["(other jobs)"].node_hours == pytest.approx(3)


def test_sacct_is_asked_for_everybody_of_the_account():
    argv = sacct.account_argv("climate", JANUARY.since_s, JANUARY.until_s)
    assert {"--allusers", "--accounts=climate", "--allocations"} < set(argv)
    begin = datetime.fromtimestamp(JANUARY.since_s).astimezone()
    assert f"--starttime={begin:%Y-%m-%dT%H:%M:%S}" in argv


@pytest.mark.parametrize(("month", "says"), [("2027-13", "is not a month"), ("x", "not a month"), ("2028-01", "begun")])
def test_what_is_no_month_is_one_error(month, says):
    with pytest.raises(UsageError, match=says):
        period(month, NOW)


def test_a_month_ends_with_itself_or_now():
    assert JANUARY.until_s - JANUARY.since_s == 31 * 86400
    assert period("", datetime(2027, 12, 3, tzinfo=UTC)).until_s == datetime(2027, 12, 3, tzinfo=UTC).timestamp()


def test_the_gateway_charges_the_project_of_the_key(tmp_path):
    path = tmp_path / "gateway.toml"
    digest = "0" * 64
    path.write_text(
        f'[services."climate/chat"]\nurls = ["http://n"]\nshared_with = ["genome"]\n'
        f'[keys.a]\nproject = "climate"\nsha256 = "{digest}"\n[keys.b]\nproject = "genome"\nsha256 = "{digest}"\n'
    )
    used = usage.opened(tmp_path / "gateway-usage.db")
    for month, key in (("2027-01", "a"), ("2027-01", "b"), ("2027-01", "b"), ("2027-02", "a"), ("2027-01", "gone")):
        used.count((month, key, "climate/chat"), Tokens(10, 5))
    used.write(used.taken())
    sources = statements.Sources(GitOps(url="unused"), path)
    answered = statements._answered(sources, JANUARY)
    assert answered == {("climate", "climate/chat"): (1, 15), ("genome", "climate/chat"): (2, 30)}
    (line,) = statements._joined([], "genome", {}, answered)
    assert (line.runs_on, line.requests, line.tokens) == ("gateway", 2, 30)


def test_real_use_comes_from_a_metrics_store(tmp_path, platform):
    """VictoriaMetrics, which speaks Prometheus' query API, with two hours of a container at half a processor."""
    now = round(time.time())
    with metric_stores.running("victoria-metrics", "127.0.0.1:9", tmp_path / "store") as store:
        labels = 'namespace="svc-climate",container="web",pod="web-1"'
        samples = [
            f"container_cpu_usage_seconds_total{{{labels}}} {t / 2} {(now - 7200 + t) * 1000}"
            for t in range(0, 7201, 60)
        ]
        httpx2.post(f"{store.url}/api/v1/import/prometheus", content="\n".join(samples)).raise_for_status()
        httpx2.get(f"{store.url}/internal/force_flush").raise_for_status()
        span = accounting.Period("x", now - 7200, now)

        def ask(query, at_s):
            return statements.query_prometheus(store.url, query, at_s)

        found = {}
        while not found:
            found = accounting.used_cpu_hours(ask, platform.namespace_prefix, span)
    assert found == {("climate", "web"): pytest.approx(1.0, rel=0.05)}


def test_a_prometheus_that_does_not_answer_is_one_error():
    with pytest.raises(PioletError, match="Prometheus does not answer"):
        statements.query_prometheus("http://127.0.0.1:9", "up", 0)
