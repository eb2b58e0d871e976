"""Runs of the lab for tests, taken from stage to stage by hand."""

from xsam.services.db.session import Database
from xsam.services.lab import advance, service
from xsam.services.lab.spec import LabSpec
from xsam.services.settings import NO_CODE
from xsam.services.teams.roles import Actor

QUALITY = {
    "rows": [
        {"start": start, "x": 0.0, "y": 0.0, "ascent_steps": k, "alpha": 1.0}
        | {"gradient": 1.0 - 0.1 * k - 0.001 * start * k, "displacement": 0.5, "chosen": 1.0}
        for start in range(5)
        for k in (1, 2, 3, 5, 7, 10)
    ]
}
"""What the computation of figure 1b finds where g_k gets worse with each step."""


def concluded(database: Database, actor: Actor) -> str:
    """Return a run of figure 1b that has come to its verdict."""
    with database.unit_of_work() as session:
        run_id = service.submit(session, LabSpec(figure="1b"), actor=actor)[0].id
    with database.unit_of_work() as session:
        advance.take_computed(session, run_id, "quality", QUALITY)
        advance.advance(session, run_id, allowed=NO_CODE)
    return run_id
