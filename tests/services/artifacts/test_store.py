from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsam.services.artifacts.store import JobFolder
from xsam.services.db.base import new_id
from xsam.services.errors import StorageError

ROOT = Path("/data/artifacts")


@pytest.mark.parametrize("job_id", ["..", "../x", "a/b", "/etc", "", ".", "a\x00b", "A", "a b", "a" * 33, "a\n", "é"])
def test_job_folder__refuses_ids_that_are_not_ours(job_id: str) -> None:
    with pytest.raises(StorageError, match="allowed are"):
        JobFolder(ROOT, job_id)


@given(st.text(max_size=40))
def test_job_folder__lies_below_the_root_whatever_the_id(job_id: str) -> None:
    try:
        folder = JobFolder(ROOT, job_id)
    except StorageError:
        return
    assert folder.path.resolve().parent == ROOT / "jobs"


def test_job_folder__keeps_attempts_apart_and_checkpoints_together() -> None:
    folder = JobFolder(ROOT, new_id())
    assert folder.logs(1) != folder.logs(2)
    assert {folder.logs(1).parent.parent, folder.checkpoints.parent / "attempts"} == {folder.path / "attempts"}
