"""The notebook on a job: as a file for everybody, in an editor for the person who started the server."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from piolet.core.errors import UsageError
from piolet.watch import notebook
from piolet.web.editors import Editors
from piolet.web.pages.job import opened
from piolet.web.rendering import page


def source(request: Request) -> Response:
    """The notebook as Python, to be opened with marimo where its reader sees the logbook."""
    with opened(request) as book:
        name = f"piolet-{book.job.job_id}.py"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(notebook.source(book.logbook), media_type="text/x-python", headers=headers)


def editor(request: Request) -> Response:
    """Start the editor, and link to it."""
    editors: Editors | None = request.app.state.editors
    if editors is None:
        raise UsageError("this server opens no notebooks", remedy="take the notebook, and open it with marimo")
    with opened(request) as book:
        found = editors.open(book.logbook)
        return page(request, "notebook.html.jinja", summary=book.grant.job, editor=found)
