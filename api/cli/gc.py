"""`xsam gc`: forget what is kept long enough, or say what would go."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from xsam.api import formats
from xsam.api.cli.options import DEFAULT_URL, UrlOption, connected
from xsam.api.cli.show import Output, OutputOption, err, show, table
from xsam.services.retention.schemas import ForgottenRead


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Forget what of ended jobs is kept long enough (admins); a dispatcher does so every minute by itself."""
    with connected(url) as client:
        if dry_run:
            found = client.admin.preview_retention()
            items = found.items
            if found.num_unmeasured:
                err.print(f"{found.num_unmeasured} jobs that ended are not measured yet and not among these.")
        else:
            items, has_more = [], True
            while has_more:
                done = client.admin.collect_retention()
                items, has_more = _added(items, done.items), done.has_more
    if output is Output.TABLE and not items:
        err.print("Nothing is kept long enough." if dry_run else "Nothing was kept long enough.")
    else:
        show(output, items, lambda items: _table(items, "would go" if dry_run else "gone"))


def _added(before: Sequence[ForgottenRead], more: Sequence[ForgottenRead]) -> list[ForgottenRead]:
    sums = {(one.team, one.kind): one for one in before}
    for one in more:
        known = sums.get((one.team, one.kind))
        num, num_bytes = (known.num, known.num_bytes) if known else (0, 0)
        sums[one.team, one.kind] = one.model_copy(update={"num": num + one.num, "num_bytes": num_bytes + one.num_bytes})
    return [sums[key] for key in sorted(sums)]


def _table(items: Sequence[ForgottenRead], what: str) -> Table:
    rows = ((escape(one.team), one.kind, f"{one.num:,}", formats.size(one.num_bytes)) for one in items)
    return table(("team", "kind", what, "size"), rows, right=(what, "size"))
