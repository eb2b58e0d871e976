"""`xsam why, queue, cluster, attention, status, usage`: the queue, what runs where, what is wrong, who used what."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from xsam.api import formats
from xsam.api.cli.options import DEFAULT_URL, JobIdArgument, UrlOption, connected
from xsam.api.cli.show import Output, OutputOption, err, fact_table, show, table
from xsam.services.cluster.schemas import ClusterRead, CordonRead, NodeRead, StoreRead
from xsam.services.reports.schemas import AttentionRead, NamedRead, QueueRead, ReachedRead, StatusRead, WhyRead
from xsam.services.usage.schemas import ShareRead, UsageRead

_PAGE_LIMIT = 200
_DAY = "%Y-%m-%d"


def why(job_id: JobIdArgument, output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """Say why a job waits, or where it stands."""
    with connected(url) as client:
        answer = client.why(job_id)
    show(output, answer, _answer)


def queue(
    limit: Annotated[int, typer.Option(min=1, max=_PAGE_LIMIT, help="At most so many, first in the queue first.")] = 20,
    after: Annotated[int, typer.Option(min=0, help="Begin after this position.")] = 0,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Show the queue: jobs in the order in which they would start."""
    with connected(url) as client:
        found = client.queue(after=after, limit=limit)
    more = f"{found.num_queued} jobs are queued; --after {found.next_position} shows more."
    if output is Output.TABLE and not found.items:
        err.print("Nobody waits.")
    else:
        show(output, found, _queue_table, remark=None if found.next_position is None else more)


def cluster(output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """Show the machines as last seen, and what runs where."""
    with connected(url) as client:
        found = client.cluster()
    show(output, found, lambda found: Group(*_cluster_parts(found)))


def status(output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """Show how the service is: release, who leads, Ray, the database."""
    with connected(url) as client:
        found = client.status()
    show(output, found, lambda found: fact_table(_status_facts(found)))


def attention(output: OutputOption = Output.TABLE, url: UrlOption = DEFAULT_URL) -> None:
    """Show what needs a look: stalled jobs, paused studies, reached quotas, a token that ends soon."""
    with connected(url) as client:
        found = client.attention()
    if output is Output.TABLE and not found.is_needed:
        err.print("Nothing needs attention.")
    else:
        show(output, found, lambda found: fact_table(_attention_facts(found)))


def _attention_facts(found: AttentionRead) -> list[tuple[str, str]]:
    def named(ones: Sequence[NamedRead]) -> str:
        return ", ".join(escape(f"{one.id} {one.name or ''}".strip()) for one in ones)

    facts = [
        ("stalled", named(found.stalled)),
        ("idle GPUs", named(found.idle)),
        ("paused for idle GPUs", named(found.idle_paused)),
        ("paused", named(found.paused)),
    ]
    held = ", ".join(escape(f"{_limited(one)} {one.held:g} of {one.limit:g}") for one in found.reached)
    ends = "" if found.token_expires_at is None else f"{found.token_expires_at:%Y-%m-%d %H:%M} UTC"
    return [fact for fact in (*facts, ("quota reached", held), ("token ends", ends)) if fact[1]]


def _limited(one: ReachedRead) -> str:
    return one.what if one.gpu_kind is None else f"{one.what} of kind {one.gpu_kind}"


def _status_facts(found: StatusRead) -> list[tuple[str, str]]:
    ray, database, leading = found.ray, found.database, found.leader
    seen = "never" if ray.seen_at is None else f"{formats.age(ray.seen_at)} ago"
    is_old = "" if database.is_current else f"; this release has {database.newest_migration}: run `xsam migrate`"
    return [
        ("service", f"xsam {found.version}"),
        (
            "leader",
            "[red]none[/]: jobs are kept, nothing starts"
            if leading is None
            else f"{escape(leading.id)} for {formats.age(leading.since)}",
        ),
        ("dispatchers", str(found.num_dispatchers)),
        (
            "Ray",
            f"{ray.num_nodes} nodes, {ray.num_gpus:g} GPUs, {ray.num_cpus:g} CPUs"
            if ray.is_live
            else f"[red]down[/], last seen {seen}",
        ),
        ("database", f"{database.kind} at {database.migration}{is_old}"),
    ]


def usage(
    since: Annotated[
        datetime | None, typer.Option(formats=[_DAY], help="First day (UTC).", show_default="30 days ago")
    ] = None,
    until: Annotated[datetime | None, typer.Option(formats=[_DAY], help="Last day.", show_default="today")] = None,
    team: Annotated[str | None, typer.Option(help="Of this team.")] = None,
    by_day: Annotated[bool, typer.Option("--by-day", help="One line for each day.")] = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Show GPU-hours and CPU-hours by team and user, and the fair shares."""
    with connected(url) as client:
        found = client.usage(since=_day(since), until=_day(until), team=team)
    show(output, found, lambda found: Group(_usage_table(found, by_day=by_day), *map(_share, found.shares)))


def _answer(answer: WhyRead) -> RenderableType:
    facts = [(name, escape(value)) for name, value in _facts(answer)]
    return Group(escape(answer.sentence), *([fact_table(facts)] if facts else []))


def _facts(answer: WhyRead) -> list[tuple[str, str]]:
    facts = []
    if answer.position is not None:
        facts.append(("position", f"{answer.position} of {answer.num_in_line}"))
    if answer.estimated_start_at is not None:
        when = f"{answer.estimated_start_at:%Y-%m-%d %H:%M:%S} UTC"
        facts.append(("start", f"not before {when}" if answer.is_lower_bound else f"expected at {when}"))
    if answer.blocking_job_ids:
        facts.append(("in the way", ", ".join(answer.blocking_job_ids)))
    if answer.standing is not None:
        standing = answer.standing
        used, entitled = formats.percent(standing.usage_fraction), formats.percent(standing.entitled_fraction)
        facts.append(("team's usage", f"{used}, entitled to {entitled}"))
    if answer.as_of is not None:
        facts.append(("decided", f"{formats.age(answer.as_of)} ago"))
    return facts


def _queue_table(found: QueueRead) -> Table:
    columns = ("place", "job", "name", "team", "by", "priority", "asks for", "waits for", "since")
    rows = (
        (
            str(entry.position),
            entry.job_id or formats.NOTHING,
            escape(entry.name or formats.NOTHING),
            escape(entry.team),
            escape(entry.user or formats.NOTHING),
            str(entry.priority),
            formats.request(entry.request),
            entry.code.replace("_", " "),
            formats.age(entry.queued_since),
        )
        for entry in found.items
    )
    return table(columns, rows, right=("place", "priority", "since"))


def _cluster_parts(found: ClusterRead) -> Iterator[RenderableType]:
    yield _cluster_sentence(found)
    if found.nodes:
        yield _node_table(found)
    for store in found.stores:
        free = f"{formats.size(store.free_bytes)} of {formats.size(store.total_bytes)} are free"
        room = free if store.total_bytes else "has no limit of its own"
        yield f"{escape(store.root)}: {room}, {formats.age(store.measured_at)} ago."
        if store.teams:
            yield _store_table(store)


def _store_table(store: StoreRead) -> Table:
    kinds = ("checkpoints", "weights", "logs", "bundles", "total")
    rows = ((escape(one.team), *(formats.size(getattr(one, kind)) for kind in kinds)) for one in store.teams)
    return table(("team", *kinds), rows, right=kinds)


def _cluster_sentence(found: ClusterRead) -> str:
    used = f"{found.used_gpus:g} of {found.num_gpus:g} GPUs and {found.used_cpus:g} of {found.num_cpus:g} CPUs are used"
    if found.maintenance is not None:
        used += f". [yellow]In maintenance, nothing new starts:[/] {escape(_why_apart(found.maintenance))}"
    if found.is_live:
        return f"{used}."
    seen = "never" if found.seen_at is None else f"{found.seen_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f"[yellow]No dispatcher is running[/]; last seen {seen}: {used}."


def _why_apart(cordon: CordonRead) -> str:
    reason = cordon.reason or "no reason given"
    leaving = "" if cordon.drain_at is None else f", jobs move from {cordon.drain_at.astimezone(UTC):%H:%M:%S} UTC on"
    return f"{reason} ({cordon.set_by}{leaving})"


def _node_table(found: ClusterRead) -> Table:
    rows = (
        (
            escape(_node_name(node, found)) + ("" if node.is_alive else " [red](gone)[/]"),
            f"{node.used_gpus:g}/{node.num_gpus:g}{escape(formats.gpus_of(node))}",
            f"{node.used_cpus:g}/{node.num_cpus:g}",
            escape(formats.labels(node.labels)),
            formats.age(node.seen_at),
            _occupants(node),
        )
        for node in found.nodes
    )
    columns = ("node", "GPUs", "CPUs", "labels", "seen", "jobs")
    return table(columns, rows, wrapped=("labels", "jobs"))


def _node_name(node: NodeRead, found: ClusterRead) -> str:
    """Return the host, with the beginning of Ray's id where a host has several nodes."""
    is_alone = [other.host for other in found.nodes].count(node.host) == 1
    return node.host if is_alone else f"{node.host} {node.id[:6]}"


def _occupants(node: NodeRead) -> str:
    others = [f"{held.num_gpus:g} GPUs, {held.num_cpus:g} CPUs: {held.what}" for held in node.foreign]
    lines = [escape(_jobs(node)), *(f"[yellow]not ours:[/] {escape(line)}" for line in others)]
    if node.cordon is not None:
        lines.append(f"[yellow]takes no new jobs:[/] {escape(_why_apart(node.cordon))}")
    if node.set_aside is not None:
        lines.append(f"[red]GPUs set aside:[/] {escape(node.set_aside)}")
    return "\n".join(lines)


def _jobs(node: NodeRead) -> str:
    shown = [f"{job.job_id} ({job.user}, {job.team})" if job.job_id else f"a job of {job.team}" for job in node.jobs]
    return ", ".join(shown) or formats.NOTHING


def _usage_table(found: UsageRead, *, by_day: bool) -> Table:
    sums: defaultdict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for item in found.items:
        day = item.day.isoformat() if by_day else f"{found.since} to {found.until}"
        used = (item.gpu_hours, item.cpu_hours, item.num_attempts)
        key = (day, item.team, item.user)
        sums[key] = [before + more for before, more in zip(sums[key], used, strict=True)]
    amounts = ("GPU-hours", "CPU-hours", "attempts")
    rows = (
        (day, escape(team), escape(user), f"{gpu_hours:,.2f}", f"{cpu_hours:,.2f}", f"{num_attempts:,.0f}")
        for (day, team, user), (gpu_hours, cpu_hours, num_attempts) in sorted(sums.items())
    )
    return table(("day" if by_day else "days", "team", "user", *amounts), rows, right=amounts)


def _share(share: ShareRead) -> str:
    return (
        f"[dim]team[/] {escape(share.team)}: {formats.percent(share.usage_fraction)} of recent usage, "
        f"entitled to {formats.percent(share.entitled_fraction)}"
    )


def _day(instant: datetime | None) -> date | None:
    return None if instant is None else instant.date()
