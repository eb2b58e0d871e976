from xsam.services.specs import form
from xsam.services.specs.job import JOB_GROUPS, JobSpec
from xsam.services.studies.spec import STUDY_GROUPS, StudySpec


def test_schema__says_units_and_groups() -> None:
    schema = form.schema_of(JobSpec, JOB_GROUPS)
    assert schema["properties"]["epochs"]["x-group"] == "training"
    assert schema["$defs"]["Limits"]["properties"]["max_run_s"]["x-unit"] == "s"
    assert "x-unit" not in schema["$defs"]["Resources"]["properties"]["num_workers"]


def test_groups__name_every_field_once_and_no_other() -> None:
    assert set(JOB_GROUPS) == set(JobSpec.model_fields)
    assert set(STUDY_GROUPS) == set(StudySpec.model_fields)
