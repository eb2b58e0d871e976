"""The dispatcher's part in the lab: takes runs from stage to stage, and has computed what they need."""

import logging
import time

import ray
from ray.exceptions import RayError
from sqlalchemy.exc import DBAPIError

from xsam.services.db.session import Database
from xsam.services.lab import advance
from xsam.services.lab.advance import Computation
from xsam.services.settings import Settings
from xsam.workers.actors import compute
from xsam.workers.messages import sentence

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0


class LabRuns:
    """Moves runs of the lab for the leading dispatcher. Used from its thread; keeps nothing that rows do not say.

    Args:
        settings: of the service.
        database: where runs and their jobs are.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._computing: dict[ray.ObjectRef, Computation] = {}
        self._look_at = 0.0

    def turn(self) -> None:
        """Store what has been computed, move each run; never waits itself."""
        self._collect()
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_INTERVAL_S
        with self._database.read() as session:
            running = advance.running(session)
        for run_id in running:
            self._begin(self._advance(run_id))

    def _advance(self, run_id: str) -> list[Computation]:
        try:
            with self._database.unit_of_work() as session:
                return advance.advance(session, run_id, allowed=self._settings.allowed_code)
        except DBAPIError:
            raise
        except Exception as e:  # the boundary: what is wrong with one run must not keep jobs from being placed
            log.exception("lab run %s can't go on", run_id)
            with self._database.unit_of_work() as session:
                advance.fail(session, run_id, f"it can't go on: {type(e).__name__}: {e}")
            return []

    def _begin(self, wanted: list[Computation]) -> None:
        begun = {(one.run_id, one.stage) for one in self._computing.values()}
        for one in wanted:
            if (one.run_id, one.stage) not in begun:
                self._computing[compute.remote(dict(one.document))] = one

    def _collect(self) -> None:
        if not self._computing:
            return
        done, _ = ray.wait(list(self._computing), num_returns=len(self._computing), timeout=0)
        for ref in done:
            one = self._computing.pop(ref)
            try:
                found = ray.get(ref)
            except RayError as e:
                log.warning("stage %s of lab run %s can't be computed: %s", one.stage, one.run_id, sentence(e))
                with self._database.unit_of_work() as session:
                    advance.fail(session, one.run_id, f"stage {one.stage} can't be computed: {sentence(e)}")
                continue
            with self._database.unit_of_work() as session:
                advance.take_computed(session, one.run_id, one.stage, found)
