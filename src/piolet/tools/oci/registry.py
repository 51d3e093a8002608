"""A registry, over its HTTP interface (OCI distribution specification 1.1), with patience.

A registry that is busy (429) or ill (5xx), or a connection that breaks, is tried again with growing pauses, or after
the pause that it asks for, until `patience_s` is over; then Busy says what the registry said last.
"""

from __future__ import annotations

import base64
import ipaddress
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx2

from piolet.core.errors import ParseError, PioletError
from piolet.tools.oci import manifest as manifests
from piolet.tools.oci.credentials import Credential
from piolet.tools.oci.manifest import Descriptor
from piolet.tools.oci.reference import HUB, Reference

PATIENCE_S = 180.0
_TIMEOUT = httpx2.Timeout(30, connect=10)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_ACCEPTED = ", ".join((*manifests.INDEXES, *manifests.MANIFESTS))
_PARAMETER = re.compile(r'([A-Za-z_]+)="([^"]*)"')
_CHUNK_BYTES = 1 << 20

Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Waited:
    """A pause before another try: how long, and what made it necessary."""

    pause_s: float
    reason: str


class Busy(PioletError):  # noqa: N818 - the state of the registry
    """A registry did not serve, after all patience."""


class Registry:
    """The registry of `reference`, for pulls of that image; use it as a context.

    `on_wait` is told of every pause. Threads may share it.
    """

    def __init__(
        self,
        reference: Reference,
        credential: Credential | None,
        *,
        patience_s: float = PATIENCE_S,
        on_wait: Callable[[Waited], None] = lambda _: None,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._reference = reference
        self._credential = credential
        self._patience_s = patience_s
        self._on_wait = on_wait
        self._sleep = sleep
        self._authorization = ""
        self._base = f"{_scheme(reference.registry)}://{_host(reference.registry)}/v2/{reference.repository}"
        self._client = httpx2.Client(timeout=_TIMEOUT, follow_redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def manifest(self, version: str) -> bytes:
        """Return the manifest or index of a tag or digest; what a digest names is verified."""
        with self._asked(f"/manifests/{version}", {"Accept": _ACCEPTED}) as response:
            content = response.read()
        if version.startswith("sha256:") and manifests.digest_of(content) != version:
            raise PioletError(
                "the registry sent another manifest than asked for", where=self._place(version), remedy="try again"
            )
        return content

    @contextmanager
    def blob(self, descriptor: Descriptor, from_byte: int = 0) -> Iterator[Iterator[bytes]]:
        """Yield the chunks of a blob from `from_byte` on; all of it, if that is 0. The caller verifies it.

        Raises:
            RangeIgnored: the registry cannot begin there; begin at 0.
        """
        headers = {"Range": f"bytes={from_byte}-"} if from_byte else {}
        with self._asked(f"/blobs/{descriptor.digest}", headers) as response:
            if from_byte and response.status_code != httpx2.codes.PARTIAL_CONTENT:
                raise RangeIgnored
            yield response.iter_raw(_CHUNK_BYTES)

    def retried(self, attempt: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the attempt returns
        """Return what `attempt` returns, trying again while the registry or the connection fails.

        Raises:
            Busy: all patience is over.
        """
        deadline, pause_s = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except (_Again, httpx2.TransportError) as error:
                asked_s = error.pause_s if isinstance(error, _Again) else 0.0
                reason = str(error) or type(error).__name__
            pause_s = max(asked_s, pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - to spread clients, not to hide
            if time.monotonic() + pause_s > deadline:
                raise self._busy(reason, asked_s)
            self._on_wait(Waited(pause_s, reason))
            self._sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    @contextmanager
    def _asked(self, path: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        response = self._sent(path, headers)
        if response.status_code == httpx2.codes.UNAUTHORIZED:
            response.read()
            self._authorization = self._authorized(response)
            response = self._sent(path, headers)
        try:
            self._check(response)
            yield response
        finally:
            response.close()

    def _sent(self, path: str, headers: dict[str, str]) -> httpx2.Response:
        known = {"Authorization": self._authorization} if self._authorization else {}
        return self._client.send(
            self._client.build_request("GET", self._base + path, headers=headers | known), stream=True
        )

    def _check(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
            raise _Again(f"HTTP {status} {response.reason_phrase}", _retry_after_s(response))
        if status in {httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN}:
            raise self._refused(status)
        if status == httpx2.codes.NOT_FOUND:
            raise PioletError("the registry has no such image", where=str(self._reference), remedy=_NOT_FOUND_REMEDY)
        if not response.is_success:
            raise PioletError(f"the registry answered HTTP {status}", where=str(response.url), remedy="try by hand")

    def _authorized(self, response: httpx2.Response) -> str:
        """Return the Authorization header that the registry's challenge asks for."""
        challenge = response.headers.get("WWW-Authenticate", "")
        if challenge.lower().startswith("basic"):
            if not self._credential:
                raise self._refused(response.status_code)
            pair = f"{self._credential.user}:{self._credential.secret}"
            return f"Basic {base64.b64encode(pair.encode()).decode()}"
        parameters = dict(_PARAMETER.findall(challenge))
        if "realm" not in parameters:
            raise self._refused(response.status_code)
        return f"Bearer {self._token(parameters)}"

    def _token(self, parameters: dict[str, str]) -> str:
        wanted: dict[str, str] = {key: parameters[key] for key in ("service", "scope") if key in parameters}
        credential = self._credential
        if credential and credential.is_token:
            form = wanted | {"grant_type": "refresh_token", "client_id": "piolet", "refresh_token": credential.secret}
            response = self._client.post(parameters["realm"], data=form)
        else:
            auth = httpx2.BasicAuth(credential.user, credential.secret) if credential else None
            response = self._client.get(parameters["realm"], params=wanted, auth=auth)
        self._check(response)
        try:
            answer = response.json()
            return str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise ParseError("not a token", source=parameters["realm"], text=response.text) from error

    def _refused(self, status: int) -> PioletError:
        registry = self._reference.registry
        if self._credential:
            said = f"the credential of {self._credential.user or 'a token'} from {self._credential.origin}"
        else:
            said = "a request without a credential"
        return PioletError(
            f"the registry refused {said} (HTTP {status})",
            where=str(self._reference),
            remedy=f"check the name of the image; log in with `podman login {registry}` or `docker login {registry}`",
        )

    def _busy(self, reason: str, asked_s: float) -> Busy:
        asked = f"; it asks for a pause of {asked_s:.0f} s" if asked_s else ""
        return Busy(
            f"the registry did not serve within {self._patience_s:g} s: {reason}{asked}",
            where=str(self._reference),
            remedy="try later; with a credential (podman login), registries allow more pulls than without",
        )

    def _place(self, version: str) -> str:
        return f"{self._reference.registry}/{self._reference.repository} {version}"


class RangeIgnored(Exception):  # noqa: N818 - not an error: the transfer begins anew
    """The registry does not serve parts of blobs."""


class _Again(Exception):  # noqa: N818 - not an error yet
    """The registry asks to be left alone for a while."""

    def __init__(self, reason: str, pause_s: float) -> None:
        self.pause_s = pause_s
        super().__init__(reason)


_NOT_FOUND_REMEDY = "check its name and tag; private images of some registries look like this without a login"


def _host(registry: str) -> str:
    return "registry-1.docker.io" if registry == HUB else registry


def _scheme(registry: str) -> str:
    """A registry on a loopback address is spoken to without TLS, as by docker; all others with it."""
    try:
        return "http" if ipaddress.ip_address(registry.partition(":")[0]).is_loopback else "https"
    except ValueError:
        return "https"


def _retry_after_s(response: httpx2.Response) -> float:
    """Return the pause that the registry asks for, in seconds; 0 if it asks for none."""
    text = response.headers.get("Retry-After", "")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
