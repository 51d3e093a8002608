"""Answers to requests that are not carried out, in the form of the OpenAI API: status, type, message."""

from __future__ import annotations

from starlette.responses import JSONResponse


class Refusal(Exception):  # noqa: N818 - an answer rather than an error of ours
    """A request that is not carried out, and why; `retry_after_s` is when it may be."""

    def __init__(self, status: int, kind: str, message: str, *, retry_after_s: int = 0) -> None:
        self.status = status
        self.kind = kind
        self.retry_after_s = retry_after_s
        super().__init__(message)

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s else {}
        return JSONResponse({"error": self.body()}, self.status, headers)

    def body(self) -> dict[str, object]:
        """Return what a client finds below `error`."""
        return {"message": str(self), "type": self.kind, "code": self.kind}
