"""A small study over each example, on a real local Ray cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.live_studies import TESTER, LiveStudies
from xsam.services.bundles import archive
from xsam.services.bundles import service as bundles
from xsam.services.bundles.service import Origin
from xsam.services.jobs.states import JobState
from xsam.services.settings import AllowedCode, CodeSettings
from xsam.services.studies import service
from xsam.services.studies.spec import StudySpec

pytestmark = pytest.mark.ray

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"


def submit(studies: LiveStudies, folder: Path) -> str:
    """Upload an example and queue its study, cut down to one trial of one epoch."""
    live, limits = studies.live, archive.limits_of(CodeSettings())
    packed = archive.pack(folder, limits)
    document: dict[str, Any] = yaml.safe_load((folder / "study.yaml").read_text())
    document["base"] |= {"code": {"bundle": packed.id}, "epochs": 1}
    if "config" in document["base"]:
        document["base"]["config"]["epochs"] = 1
    spec = StudySpec.model_validate(document | {"num_trials": 1, "compute": "epochs"})
    with live.database.unit_of_work() as session:
        store = live.settings.store_place.open()
        bundles.add(session, store, packed.id, packed.packed, actor=TESTER, limits=limits, origin=Origin())
        job, _ = service.submit(session, spec, actor=TESTER, allowed=AllowedCode(takes_bundles=True))
        return job.id


def test_study__over_each_example(studies: LiveStudies) -> None:
    folders = sorted(path.parent for path in EXAMPLES.glob("*/study.yaml"))
    for folder in folders:
        study_id = submit(studies, folder)
        job = studies.finish(study_id)
        told = [studies.live.job(trial.job_id).failure_message for trial in studies.trials(study_id)]
        assert (job.state, told) == (JobState.SUCCEEDED, [None]), folder.name
        values = [trial.value for trial in studies.trials(study_id)]
        assert None not in values
        assert job.summary["best_value"] in values
