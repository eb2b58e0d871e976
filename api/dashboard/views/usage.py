"""Who used how much, day by day, and where teams stand in the fair share."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from xsam.api.dashboard.pages import PageDep, Pages, ViewQuery
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import ReadSession
from xsam.api.http.queries import Day, Text
from xsam.services.reports import usage
from xsam.services.usage.schemas import UsageItem, UsageRead

pages = Pages()


class UsageView(ViewQuery):
    """Whose usage is looked at, and of which days."""

    since: Day | None = None
    until: Day | None = None
    team: Text | None = None
    by: Annotated[str, Field(pattern="^(team|user)$")] = "team"
    unit: Annotated[str, Field(pattern="^(gpu|cpu)$")] = "gpu"
    """Hours of what."""


@pages.get("/usage")
def show_usage(page: PageDep, session: ReadSession, view: Annotated[UsageView, Query()]) -> Response:
    """Show hours by day, and the fair shares."""
    team = visible_team(page.principal, view.team)
    found = usage.usage(session, since=view.since, until=view.until, team=team)
    days = [str(found.since + timedelta(days=i)) for i in range((found.until - found.since).days + 1)]
    series = _by_day(found, view, days)
    return page.render(
        "usage.html",
        view=view,
        state=view.changed(),
        usage=found,
        days=days,
        series=series,
        totals=sorted(((name, sum(values)) for name, values in series.items()), key=lambda one: -one[1]),
    )


@pages.get("/usage.csv")
def download_usage(page: PageDep, session: ReadSession, view: Annotated[UsageView, Query()]) -> Response:
    """Return the same as a table for other programs."""
    found = usage.usage(session, since=view.since, until=view.until, team=visible_team(page.principal, view.team))
    text = io.StringIO()
    writer = csv.writer(text)
    fields = tuple(UsageItem.model_fields)
    writer.writerow(fields)
    writer.writerows([getattr(item, name) for name in fields] for item in found.items)
    headers = {"Content-Disposition": f'attachment; filename="usage-{found.since}-{found.until}.csv"'}
    return Response(text.getvalue(), media_type="text/csv", headers=headers)


def _by_day(found: UsageRead, view: UsageView, days: list[str]) -> Mapping[str, list[float]]:
    places = {day: i for i, day in enumerate(days)}
    series: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * len(days))
    for item in found.items:
        name = item.team if view.by == "team" else item.user
        series[name][places[str(item.day)]] += item.gpu_hours if view.unit == "gpu" else item.cpu_hours
    return series
