"""The policy: what fails, what warns, and what is allowed, by whom it was decided and until when.

    [levels]                      # rule ids, * matches; the last match counts
    "habit/*" = "warn"            # fail, warn, ignore; unchecked/* also unknown
    [[allow]]
    rule = "secret/value"
    path = "examples/*.sh"        # inside = "*.pem*" for what of the file
    reason = "the public demonstration account"
    expires = 2027-01-31
    [model]
    imports = ["mylab.layers.*"]  # exact names, or the classes (Capital letter) of a module

An allowance that has expired no longer counts, and says so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from piolet.core import toml
from piolet.core.text import did_you_mean
from piolet.guard import rules
from piolet.guard.finding import Level, Place, Risk, Scan, risk

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Allowance(BaseModel):
    """A risk that was looked at and accepted: which rule, where and inside of what (patterns), why, until which day."""

    model_config = _STRICT
    rule: Text
    path: Text = "*"
    inside: Text = "*"
    reason: Text
    expires: dt.date


class ModelLimits(BaseModel):
    """What a model file may be: `imports` beyond the known ones, bytes unpacked, their ratio, archives in archives."""

    model_config = _STRICT
    imports: tuple[Text, ...] = ()
    max_bytes: int = Field(default=1 << 40, gt=0)
    max_ratio: float = Field(default=200.0, gt=1)
    max_depth: int = Field(default=3, ge=1)


class ImageLimits(BaseModel):
    """What an image may be: bytes of a layer once unpacked, their ratio (from 64 MiB on), files of all layers."""

    model_config = _STRICT
    max_bytes: int = Field(default=1 << 40, gt=0)
    max_ratio: float = Field(default=200.0, gt=1)
    max_files: int = Field(default=10_000_000, gt=0)


class Policy(BaseModel):
    """A policy file."""

    model_config = _STRICT
    levels: dict[str, Level] = {}
    allow: tuple[Allowance, ...] = ()
    model: ModelLimits = ModelLimits()
    image: ImageLimits = ImageLimits()

    def level(self, rule: str) -> Level:
        """Return the level of a rule: the last pattern that matches, else the rule's own."""
        given = [level for pattern, level in self.levels.items() if fnmatchcase(rule, pattern)]
        return given[-1] if given else rules.RULES[rule].level


@dataclass(frozen=True, slots=True)
class Judged:
    """A risk with its level, and the reason of the allowance that took it out of the verdict, if one did."""

    risk: Risk
    level: Level
    allowed: str = ""

    @property
    def rule(self) -> str:
        """The id of its rule."""
        return self.risk.rule


@dataclass(frozen=True, slots=True)
class Verdict:
    """A scan as the policy judges it; what it ignores or allows is kept, at level IGNORE."""

    scan: Scan
    judged: tuple[Judged, ...]

    def count(self, level: Level) -> int:
        """Return how many risks have `level`."""
        return sum(each.level is level for each in self.judged)

    @property
    def exit_status(self) -> int:
        """0 nothing fails, 1 something does, 3 nothing does but something could not be checked."""
        if self.count(Level.FAIL):
            return 1
        return 3 if self.count(Level.UNKNOWN) else 0


def read(path: Path | None) -> Policy:
    """Read the policy at `path`; None is the policy that needs no file.

    Raises:
        ConfigError: not TOML, an unknown key or rule, a value of the wrong type; it names file, key and line.
        StorageError: the file cannot be read.
    """
    if path is None:
        return Policy()
    document = toml.read(path)
    try:
        policy = Policy.model_validate(document.data)
    except ValidationError as error:
        first: Any = error.errors()[0]
        key = _dotted(first["loc"])
        raise document.error(f"{key}: {first['msg']}", key, remedy="correct the policy there") from error
    for key, pattern in _patterns(policy):
        if not any(fnmatchcase(rule, pattern) for rule in rules.RULES):
            raise document.error(f'no rule "{pattern}"', key, remedy=did_you_mean(pattern, rules.RULES))
    return policy


def judge(scan: Scan, policy: Policy, today: dt.date) -> Verdict:
    """Judge a scan; pure."""
    judged = [_judged(each, policy, today) for each in scan.risks]
    used = [each for each in policy.allow if each.expires < today and any(_matches(each, one) for one in scan.risks)]
    expired = [
        risk(rules.EXPIRED, Place(each.path), f"{each.rule} was allowed until {each.expires}: {each.reason}")
        for each in used
    ]
    judged += [Judged(each, policy.level(each.rule)) for each in expired]
    return Verdict(scan, tuple(judged))


def _judged(each: Risk, policy: Policy, today: dt.date) -> Judged:
    for allowance in policy.allow:
        if allowance.expires >= today and _matches(allowance, each):
            return Judged(each, Level.IGNORE, f"{allowance.reason} (until {allowance.expires})")
    return Judged(each, policy.level(each.rule))


def _matches(allowance: Allowance, each: Risk) -> bool:
    seen = ((each.rule, allowance.rule), (each.path, allowance.path), (each.inside, allowance.inside))
    return all(fnmatchcase(text, pattern) for text, pattern in seen)


def _patterns(policy: Policy) -> Iterator[tuple[str, str]]:
    yield from ((f"levels.{pattern}", pattern) for pattern in policy.levels)
    yield from ((f"allow[{index}].rule", each.rule) for index, each in enumerate(policy.allow))


def _dotted(location: Sequence[str | int]) -> str:
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return key.removeprefix(".")
