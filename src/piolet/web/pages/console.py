"""SQL over one job: the page, the plot of an answer over time, the answer as CSV."""

from __future__ import annotations

import csv
import io

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from piolet.core.errors import UsageError
from piolet.logbook.schema import FAMILIES
from piolet.watch import console
from piolet.watch.console import Answer
from piolet.web import plots
from piolet.web.pages.job import opened
from piolet.web.rendering import page

EXAMPLES = (
    ("Slowest GPUs", "SELECT node, gpu, avg(sm_active_ratio) AS sm_active FROM gpu GROUP BY ALL ORDER BY 3 LIMIT 10"),
    (
        "Power over time",
        "SELECT time_ns // 1e9::BIGINT * 1e9::BIGINT AS time_ns, sum(power_w) AS power_w FROM gpu GROUP BY 1",
    ),
    ("Errors", "SELECT time_ns, node, gpu, kind, code, message FROM events WHERE severity = 'error' ORDER BY 1"),
)
MOST_SHOWN = 500


def sql(request: Request) -> Response:
    """The page: the query, its answer, or why there is none."""
    query = request.query_params
    answer, problem = None, ""
    if query.get("q"):
        try:
            answer = _answer(request)
        except UsageError as error:
            problem = f"{error.what}. {error.remedy}"
    return page(
        request,
        "sql.html.jinja",
        job=query.get("job", ""),
        query=query.get("q", ""),
        answer=answer,
        shown=answer.rows[:MOST_SHOWN] if answer else (),
        problem=problem,
        plotted=bool(answer and plots.plot_of_answer(answer.columns, answer.rows)),
        examples=EXAMPLES,
        families=FAMILIES.values(),
    )


def plot(request: Request) -> Response:
    """The data of the plot of an answer."""
    answer = _answer(request)
    return JSONResponse(plots.plot_of_answer(answer.columns, answer.rows))


def csv_file(request: Request) -> Response:
    """The answer as CSV."""
    answer = _answer(request)
    text = io.StringIO()
    csv.writer(text).writerows([answer.columns, *answer.rows])
    headers = {"content-disposition": 'attachment; filename="answer.csv"'}
    return Response(text.getvalue(), media_type="text/csv", headers=headers)


def _answer(request: Request) -> Answer:
    job = request.query_params.get("job", "")
    if "/" not in job:
        raise UsageError("no job to ask", remedy="name it as cluster/job, as the list of jobs does")
    with opened(request, job) as book:
        return console.ask(book, request.query_params.get("q", ""))
