"""What reporters send: evidence as JSON, checked to the last field before anything of it is believed.

    POST /v1/evidence   {"evidence": [{"id": "1:xid:17", "time_ns": ..., "kind": "xid", "code": "79", "node": "n7"}]}
    POST /v1/alerts     Prometheus Alertmanager's web hook (version 4)

All of a report is taken or none. Who sends it cannot say that he is Slurm: ends of jobs, and whether a node is healed,
are Slurm's to tell; who is a lemon, the fleet's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Len
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from piolet.core.errors import Refused, UsageError
from piolet.core.nouns import Status
from piolet.fleet.evidence import REVALIDATION, Evidence, Kind, Source, made_id
from piolet.fleet.identity import Caller

T = TypeVar("T")

MOST = 5000
"""Items of one report."""

_PAST_NS = 40 * 86_400_000_000_000
_FUTURE_NS = 600_000_000_000

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+-]*$")]
Optional = Annotated[str, Field(max_length=128, pattern=r"^[\x20-\x7e]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Item(_Strict):
    """One observation, as a node or a monitor reports it. `id` is the reporter's own, unique for the node."""

    id: Name
    time_ns: Annotated[int, Ge(0)]
    kind: Annotated[Kind, Field(strict=False)]
    code: Name
    node: Name
    gpu: Optional = ""
    serial: Optional = ""
    status: Annotated[Status, Field(strict=False)] = Status.FAIL
    job: Optional = ""
    user: Optional = ""
    tier: Optional = ""
    value: float | None = None
    message: Annotated[str, Field(max_length=1000)] = ""


class Report(_Strict):
    """The body of a report."""

    evidence: Annotated[list[Item], Len(1, MOST)]


class Alert(BaseModel):
    """What is read of one alert; Alertmanager sends more."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: AwareDatetime  # noqa: N815 - Alertmanager's name
    fingerprint: Annotated[str, Field(max_length=128)] = ""


class Alerts(BaseModel):
    """The body of Alertmanager's web hook."""

    version: Literal["4"]
    alerts: Annotated[list[Alert], Len(0, MOST)]


_REPORT = TypeAdapter(Report)
_ALERTS = TypeAdapter(Alerts)


def parse(body: bytes, caller: Caller, nodes: Collection[str], now_ns: int) -> list[Evidence]:
    """Return the evidence of a report by `caller` on `nodes`, the nodes of the cluster.

    Raises:
        UsageError: it is not of the form; the message names the first field that is not.
        Refused: the caller may not say this.
    """
    report = _validated(body, _REPORT)
    return [_evidence(item, place, caller, nodes, now_ns) for place, item in enumerate(report.evidence)]


def _evidence(item: Item, place: int, caller: Caller, nodes: Collection[str], now_ns: int) -> Evidence:
    where = f"evidence[{place}]"
    if item.node not in nodes:
        raise UsageError(f"the cluster has no node {item.node}", where=f"{where}.node", remedy="`sinfo -N` lists them")
    if caller.nodes is not None and item.node not in caller.nodes:
        raise Refused(
            f"{caller.name} does not speak for {item.node}", where=f"{where}.node", remedy="use its own token"
        )
    if item.kind in _SLURMS or item.code == REVALIDATION:
        raise Refused(
            f"{item.kind.value}:{item.code} is not for reporters to tell", where=f"{where}.kind", remedy="leave it out"
        )
    if not now_ns - _PAST_NS <= item.time_ns <= now_ns + _FUTURE_NS:
        raise UsageError("a time of the last 40 days is expected", where=f"{where}.time_ns", remedy="check the clock")
    return Evidence(
        made_id(item.node, item.id),
        item.time_ns,
        item.kind,
        item.code,
        item.node,
        gpu=item.gpu,
        serial=item.serial,
        status=item.status,
        job=item.job,
        user=item.user,
        tier=item.tier,
        value=item.value,
        message=item.message,
        source=Source.NODE,
    )


_SLURMS = frozenset({Kind.JOB, Kind.LEMON})


def parse_alerts(body: bytes, nodes: Collection[str], now_ns: int) -> tuple[list[Evidence], int]:
    """Return the evidence of firing alerts on `nodes`, and how many alerts are about something else.

    Raises:
        UsageError: it is not of the form.
    """
    alerts = _validated(body, _ALERTS)
    firing = [alert for alert in alerts.alerts if alert.status == "firing"]
    found = [(alert, _node(alert, nodes)) for alert in firing]
    return [_of_alert(alert, node, now_ns) for alert, node in found if node], sum(not node for _, node in found)


def _node(alert: Alert, nodes: Collection[str]) -> str:
    """Return the node of an alert: label ``node``, ``hostname`` or ``instance``, without domain and port."""
    for label in ("node", "hostname", "instance"):
        name = alert.labels.get(label, "").partition(":")[0]
        for candidate in (name, name.partition(".")[0]):
            if candidate in nodes:
                return candidate
    return ""


def _of_alert(alert: Alert, node: str, now_ns: int) -> Evidence:
    began: datetime = alert.startsAt
    name = alert.labels.get("alertname", "unnamed")[:128]
    message = alert.annotations.get("summary") or alert.annotations.get("description") or ""
    return Evidence(
        made_id(node, name, alert.fingerprint, began.isoformat()),
        min(round(began.timestamp() * 1e9), now_ns),
        Kind.ALERT,
        name,
        node,
        gpu=alert.labels.get("UUID", alert.labels.get("gpu", ""))[:128],
        message=message[:1000],
        source=Source.ALERT,
    )


def _validated(body: bytes, kind: TypeAdapter[T]) -> T:
    try:
        return kind.validate_json(body)
    except ValidationError as error:
        raise UsageError(*_first(error.errors(include_url=False, include_input=False))) from error


def _first(errors: Sequence[Any]) -> tuple[str]:
    first = errors[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    return (f"{place or 'the report'}: {first['msg']}",)
