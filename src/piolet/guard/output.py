"""A verdict as rows, as JSON and as SARIF 2.1.0, the form that code hosts and editors show beside the line."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from piolet import __version__
from piolet.core.text import plural
from piolet.guard.finding import Level, Rule
from piolet.guard.policy import Judged, Verdict
from piolet.guard.rules import RULES

_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Level.FAIL: "error", Level.WARN: "warning", Level.UNKNOWN: "warning", Level.IGNORE: "note"}
_ORDER = (Level.FAIL, Level.UNKNOWN, Level.WARN)


def rows(verdict: Verdict) -> list[tuple[str, str, str, str, str]]:
    """Return level, rule, place, what was seen and what to do, the gravest first; what is ignored is left out."""
    shown = sorted((each for each in verdict.judged if each.level in _ORDER), key=lambda each: _ORDER.index(each.level))
    return [
        (str(each.level), each.rule, str(each.risk.place), each.risk.reason, RULES[each.rule].remedy) for each in shown
    ]


def summary(verdict: Verdict) -> str:
    """Return the verdict in one line."""
    fails, unknown, warns, ignored = (verdict.count(level) for level in (*_ORDER, Level.IGNORE))
    scan = verdict.scan
    size = plural(scan.files, scan.noun) + (f", {scan.size_bytes / 1e6:.1f} MB" if scan.noun == "file" else "")
    words = {"fail": fails, "could not be checked": unknown, "warn": warns, "ignored or allowed": ignored}
    found = ", ".join(f"{count} {word}" for word, count in words.items() if count) or "nothing found"
    return f"{scan.kind}: {size}: {found}"


def to_json(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict for programs."""
    return {
        "kind": verdict.scan.kind,
        "files": verdict.scan.files,
        "size_bytes": verdict.scan.size_bytes,
        "exit_status": verdict.exit_status,
        "counts": {str(level): verdict.count(level) for level in Level},
        "risks": [_entry(each) for each in verdict.judged],
    }


def to_sarif(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as a SARIF log; what an allowance took out is a suppressed result."""
    used = sorted({each.rule for each in verdict.judged})
    driver = {"name": "piolet guard", "version": __version__, "rules": [_rule(RULES[name]) for name in used]}
    results = [_result(each, used.index(each.rule)) for each in verdict.judged]
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    return {"$schema": _SARIF, "version": "2.1.0", "runs": [run]}


def _entry(each: Judged) -> dict[str, Any]:
    seen = each.risk
    place = {"path": seen.path, "line": seen.line or None, "inside": seen.inside}
    known = RULES[each.rule]
    words = {"reason": seen.reason, "title": known.title, "next": known.remedy, "allowed": each.allowed}
    return {"level": str(each.level), "rule": each.rule, **place, **words}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "help": {"text": rule.remedy},
        "defaultConfiguration": {"level": _LEVELS[rule.level]},
    }


def _result(each: Judged, index: int) -> dict[str, Any]:
    where: dict[str, Any] = {"artifactLocation": {"uri": quote(each.risk.path.encode("utf-8", "surrogateescape"))}}
    if each.risk.line:
        where["region"] = {"startLine": each.risk.line}
    inside = f" [{each.risk.inside}]" if each.risk.inside else ""
    result = {
        "ruleId": each.rule,
        "ruleIndex": index,
        "level": _LEVELS[each.level],
        "message": {"text": f"{each.risk.reason}{inside}. {RULES[each.rule].remedy}"},
        "locations": [{"physicalLocation": where}],
    }
    if each.allowed:
        result["suppressions"] = [{"kind": "external", "justification": each.allowed}]
    return result
