"""What DCGM's diagnostics say, where they are installed: NVIDIA's own tests, from quick to an hour or two."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any, Literal

from piolet.core.errors import ParseError
from piolet.core.nouns import Status
from piolet.core.run import SystemRunner
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import slurm_indexes

_MARGIN_S = 2.0
_REMEDY = "tell the operators, with the test that is named; `dcgmi diag` with a higher level says more"


@dataclass(frozen=True, slots=True)
class Parameters:
    """`level`: 1 takes about 30 s, 2 two minutes, 3 a quarter of an hour, 4 one to two hours; give it that `timeout`.

    `required`: a node without DCGM is unknown; else it passes, and the result says so.
    """

    level: Literal[1, 2, 3, 4] = 1
    required: bool = False


@dataclass(frozen=True, slots=True)
class Tested:
    """A test on one GPU (or, without a number, on all): what DCGM calls its end, and what it said."""

    test: str
    gpu: str
    status: str
    said: str = ""


def observe(parameters: Parameters, context: Context) -> tuple[Tested, ...] | None:
    """Run the diagnostics on the allocated GPUs; None without DCGM."""
    if shutil.which("dcgmi") is None:
        return None
    indexes = slurm_indexes(context.environ)
    chosen = ["-i", ",".join(map(str, sorted(indexes)))] if indexes else []
    argv = ["dcgmi", "diag", "-r", str(parameters.level), "-j", *chosen]
    return parse(SystemRunner().run(argv, timeout=context.timeout_s - _MARGIN_S, ok=None).stdout)


def parse(text: str) -> tuple[Tested, ...]:
    """Parse the JSON of ``dcgmi diag -j``: categories of tests, each with a result a GPU.

    Source: the diagnostics' JSON output of the DCGM User Guide (releases 2 and 3); warnings are a text or a list.
    """
    try:
        diagnostic = json.loads(text[text.index("{") :])["DCGM GPU Diagnostic"]
        return tuple(
            Tested(test["name"], str(each.get("gpu_ids", each.get("gpu_id", ""))), each["status"], _said(each))
            for category in diagnostic["test_categories"]
            for test in category["tests"]
            for each in test["results"]
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParseError("not the answer of the diagnostics", source="dcgmi diag -j", text=text[:200]) from error


def _said(result: dict[str, Any]) -> str:
    warnings = result.get("warnings", result.get("warning", ""))
    listed = warnings if isinstance(warnings, list) else [warnings]
    return "; ".join(str(each["warning"] if isinstance(each, dict) else each) for each in listed)


def judge(observation: tuple[Tested, ...] | None, parameters: Parameters) -> Judgement:
    """Fail on a test that failed; unknown if none passed."""
    if observation is None:
        status = Status.UNKNOWN if parameters.required else Status.PASS
        return Judgement(status, "DCGM is not installed here", remedy="install datacenter-gpu-manager on the nodes")
    failed = [each for each in observation if each.status.lower().startswith("fail")]
    if failed:
        where = f"GPU {failed[0].gpu}: " if failed[0].gpu else ""
        reason = f"{where}{failed[0].test} failed: {failed[0].said or 'without a word'}"
        return Judgement(Status.FAIL, reason, len(failed), 0, "tests", _REMEDY)
    passed = sum(each.status.lower() == "pass" for each in observation)
    if not passed:
        return Judgement(Status.UNKNOWN, f"none of {len(observation)} tests ran", remedy="run `dcgmi diag` by hand")
    return Judgement(Status.PASS, f"{passed} tests of level {parameters.level} passed", 0, 0, "tests")


CHECK = Check(
    name="dcgm",
    version=1,
    summary="NVIDIA's own diagnostics pass, where they are installed",
    source="DCGM User Guide: levels and their durations",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    quiet=True,
    typical_s=30.0,
    timeout_s=120.0,
)
