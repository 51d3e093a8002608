"""Pages from templates. Everything of a job reaches HTML through Jinja's autoescape only."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from piolet import __version__
from piolet.web import words

HERE = Path(__file__).parent


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:  # noqa: ANN401 - what the template names
    """Return the page of `template`, or, for a request by a page's own script, only its block `fragment`."""
    found = templates().get_template(template)
    context |= {"viewer": getattr(request.state, "viewer", None), "path": request.url.path, "version": __version__}
    if request.headers.get("x-fragment") and "fragment" in found.blocks:
        made = found.new_context(context)
        return HTMLResponse("".join(found.blocks["fragment"](made)), status)
    return HTMLResponse(found.render(context), status, headers={"vary": "X-Fragment"})


@cache
def templates() -> Environment:
    """Return the templates with the words that they use."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= words.FILTERS
    return environment
