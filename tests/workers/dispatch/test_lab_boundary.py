"""A run of the lab that can't go on ends by itself; the dispatcher's turn does not."""

from tests.support import jobs
from xsam.services.db.session import Database
from xsam.services.lab import advance, service
from xsam.services.lab.spec import LabSpec
from xsam.services.settings import Settings
from xsam.workers.dispatch.lab_runs import LabRuns


def test_turn__ends_a_run_whose_evidence_makes_no_finding(database: Database) -> None:
    with database.unit_of_work() as session:
        run_id = service.submit(session, LabSpec(figure="1b"), actor=jobs.ALICE)[0].id
        advance.take_computed(session, run_id, "quality", {"rows": "none"})
    LabRuns(Settings(), database).turn()
    with database.read() as session:
        run = service.get(session, run_id)
    assert run.state == "failed"
    assert "it can't go on: TypeError" in (run.failure or "")
