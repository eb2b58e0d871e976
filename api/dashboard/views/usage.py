"""Who used how much, day by day, and for what; where teams stand in the fair share."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field
from sqlalchemy.orm import Session

from xsam.api.dashboard.copying import of_usage
from xsam.api.dashboard.pages import PageDep, Pages, ViewQuery
from xsam.api.http.access import visible_team
from xsam.api.http.dependencies import ReadSession
from xsam.api.http.queries import Day, Text
from xsam.services.reports import spending, usage
from xsam.services.reports.spending import SpendingBy, SpendingItem, SpendingRead
from xsam.services.usage.schemas import UsageItem, UsageRead

_BY_DAY = ("team", "user")
"""Whose usage is kept by day; the rest is summed over attempts."""
_SUMMED = ("optimizer", "model", "study")

pages = Pages()


class UsageView(ViewQuery):
    """Whose usage is looked at, and of which days."""

    since: Day | None = None
    until: Day | None = None
    team: Text | None = None
    by: Annotated[str, Field(pattern=f"^({'|'.join(_BY_DAY + _SUMMED)})$")] = "team"
    unit: Annotated[str, Field(pattern="^(gpu|cpu)$")] = "gpu"
    """Hours of what."""


@pages.get("/usage")
def show_usage(page: PageDep, session: ReadSession, view: Annotated[UsageView, Query()]) -> Response:
    """Show hours by day or summed, and the fair shares."""
    team = visible_team(page.principal, view.team)
    found = usage.usage(session, since=view.since, until=view.until, team=team)
    days = [str(found.since + timedelta(days=i)) for i in range((found.until - found.since).days + 1)]
    sums = None if view.by in _BY_DAY else _sums(session, found, view, team)
    series = _by_day(found, view, days) if sums is None else {}
    return page.render(
        "usage.html",
        view=view,
        state=view.changed(),
        usage=found,
        days=days,
        series=series,
        by=_BY_DAY + _SUMMED,
        copies=of_usage(view.model_dump(include={"since", "until", "team"}, exclude_none=True)),
        sums=[] if sums is None else _ranked(sums, view),
        totals=sorted(((name, sum(values)) for name, values in series.items()), key=lambda one: -one[1]),
    )


@pages.get("/usage.csv")
def download_usage(page: PageDep, session: ReadSession, view: Annotated[UsageView, Query()]) -> Response:
    """Return the same as a table for other programs."""
    team = visible_team(page.principal, view.team)
    found = usage.usage(session, since=view.since, until=view.until, team=team)
    text = io.StringIO()
    writer = csv.writer(text)
    fields: Sequence[str] = tuple(UsageItem.model_fields)
    items: Sequence[Any] = found.items
    if view.by not in _BY_DAY:
        fields, items = tuple(SpendingItem.model_fields), _sums(session, found, view, team).items
    writer.writerow(fields)
    writer.writerows([getattr(item, name) for name in fields] for item in items)
    headers = {"Content-Disposition": f'attachment; filename="usage-{found.since}-{found.until}.csv"'}
    return Response(text.getvalue(), media_type="text/csv", headers=headers)


def _by_day(found: UsageRead, view: UsageView, days: list[str]) -> Mapping[str, list[float]]:
    places = {day: i for i, day in enumerate(days)}
    series: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * len(days))
    for item in found.items:
        name = item.team if view.by == "team" else item.user
        series[name][places[str(item.day)]] += item.gpu_hours if view.unit == "gpu" else item.cpu_hours
    return series


def _sums(session: Session, found: UsageRead, view: UsageView, team: str | None) -> SpendingRead:
    """Return what the same days' usage was for."""
    first, last = (datetime.combine(day, at, UTC) for day, at in ((found.since, time.min), (found.until, time.max)))
    return spending.spending(session, by=SpendingBy(view.by), since=first, until=last, team=team)


def _ranked(found: SpendingRead, view: UsageView) -> list[tuple[SpendingItem, bool, float]]:
    """Return what was used, most first, with whether it is the rest of all and with the hours of the wanted unit."""
    rows = [(item, False) for item in found.items] + ([] if found.rest is None else [(found.rest, True)])
    hours = [(item, is_rest, item.gpu_hours if view.unit == "gpu" else item.cpu_hours) for item, is_rest in rows]
    return sorted((one for one in hours if one[2]), key=lambda one: (one[1], -one[2]))
