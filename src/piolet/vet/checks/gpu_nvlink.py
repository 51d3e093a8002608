"""Every NVLink is up, and none has seen errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pynvml
from annotated_types import Ge

from piolet.core.nouns import Status
from piolet.tools import nvml
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus

COUNTERS = {
    pynvml.NVML_NVLINK_ERROR_DL_REPLAY: "replay",
    pynvml.NVML_NVLINK_ERROR_DL_RECOVERY: "recovery",
    pynvml.NVML_NVLINK_ERROR_DL_CRC_FLIT: "flow-control CRC",
    pynvml.NVML_NVLINK_ERROR_DL_CRC_DATA: "data CRC",
}
"""The errors that count, since the driver was loaded."""

_CARD = "PCI"
"""What the names of PCIe cards hold ("A100-PCIE-40GB", "H100 PCIe"): those have NVLink only where a bridge is."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What each GPU must have.

    `links`: how many must be active; left out, as many as the best equipped GPU of the step has, or none at all on a
    PCIe card, which may be without a bridge. `max_errors`: of one kind on one link.
    """

    links: Annotated[int, Ge(0)] | None = None
    max_errors: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, slots=True)
class Errors:
    """How many errors of one kind a link has counted."""

    count: int
    link: int
    kind: str


@dataclass(frozen=True, slots=True)
class Links:
    """One GPU: the numbers of its links that are up and down, and their errors; None: it does not count them."""

    active: tuple[int, ...]
    inactive: tuple[int, ...] = ()
    errors: tuple[Errors, ...] | None = ()
    is_card: bool = False

    @property
    def count(self) -> int:
        """How many links the GPU has."""
        return len(self.active) + len(self.inactive)


def observe(parameters: Parameters, context: Context) -> Gpus[Links]:  # noqa: ARG001 - the interface of checks
    """Read the state of each link, and the error counters of those that are up."""
    return gpus.observe(context, _read)


def judge(observation: Gpus[Links], parameters: Parameters) -> Judgement:
    """Fail on the first GPU that lacks links, then on the link with the most errors."""
    nothing = gpus.nothing_to_judge(observation)
    if nothing:
        return nothing
    most = max((links.count for _, links in observation.answering), default=0)
    for name, links in observation.answering:
        if parameters.links is None and links.is_card and not links.active:
            continue
        wanted = most if parameters.links is None else parameters.links
        if len(links.active) < wanted:
            return _down(name, links, wanted)
    counted = [(each, name) for name, links in observation.answering for each in links.errors or ()]
    worst, name = max(counted, key=lambda pair: pair[0].count, default=(Errors(0, 0, ""), ""))
    if worst.count > parameters.max_errors:
        reason = f"{name}: link {worst.link} has counted {worst.count} {worst.kind} errors"
        remedy = "tell the operators: the link or its connector is bad; a reset of the GPU trains it anew"
        return Judgement(Status.FAIL, reason, worst.count, parameters.max_errors, "errors", remedy)
    return Judgement(Status.PASS, _fine(observation), worst.count, parameters.max_errors, "errors")


def _down(name: str, links: Links, wanted: int) -> Judgement:
    down = f" (down: {', '.join(map(str, links.inactive))})" if links.inactive else ""
    return Judgement(
        Status.FAIL,
        f"{name}: {len(links.active)} of {wanted} NVLinks are active{down}",
        len(links.active),
        wanted,
        "links",
        "tell the operators: the link, its switch or the fabric manager; GPUs without bridges need `links: 0`",
    )


def _fine(observation: Gpus[Links]) -> str:
    fewest = min((len(links.active) for _, links in observation.answering), default=0)
    uncounted = [name for name, links in observation.answering if links.errors is None]
    said = f"{fewest} NVLinks are active on each GPU" if fewest else "no NVLink here"
    return said + (f"; {', '.join(uncounted)} does not count errors" if uncounted else "")


def _read(handle: Any) -> Links:  # noqa: ANN401 - opaque
    states = {
        link: nvml.supported(pynvml.nvmlDeviceGetNvLinkState, handle, link)
        for link in range(pynvml.NVML_NVLINK_MAX_LINKS)
    }
    active = tuple(link for link, state in states.items() if state == pynvml.NVML_FEATURE_ENABLED)
    inactive = tuple(link for link, state in states.items() if state == pynvml.NVML_FEATURE_DISABLED)
    model = nvml.optional(pynvml.nvmlDeviceGetName, handle) or ""
    return Links(active, inactive, _errors(handle, active), is_card=_CARD in model.upper())


def _errors(handle: Any, links: tuple[int, ...]) -> tuple[Errors, ...] | None:  # noqa: ANN401 - opaque
    found = []
    for link in links:
        for counter, kind in COUNTERS.items():
            count = nvml.supported(pynvml.nvmlDeviceGetNvLinkErrorCounter, handle, link, counter)
            if count is None:
                return None
            found.append(Errors(count, link, kind))
    return tuple(found)


CHECK = Check(
    name="gpu_nvlink",
    version=1,
    summary="every NVLink is up, and none has counted errors",
    source="a link that is down halves what a collective gets or stops it; healthy links count no CRC error, replay "
    "or recovery (NVIDIA, NVLink error counters)",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
