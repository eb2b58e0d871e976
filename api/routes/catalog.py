"""What a job may name, and what specifications look like: JSON Schemas for forms and editors."""

from functools import cache
from typing import Any

from xsam.api.http.router import Router
from xsam.services.specs import catalog, form
from xsam.services.specs.catalog import Catalog
from xsam.services.specs.job import JOB_GROUPS, JobSpec
from xsam.services.studies.spec import STUDY_GROUPS, StudySpec

router = Router("/v1", "catalog")


@router.route("GET", "/optimizers", "List the optimizers")
def list_optimizers() -> Catalog:
    """Return the optimizer variants; base optimizers (SGD, AdamW, ...) are part of each one's schema."""
    return catalog.optimizers()


@router.route("GET", "/models", "List the models")
def list_models() -> Catalog:
    """Return the networks a job may train."""
    return catalog.models()


@router.route("GET", "/datasets", "List the datasets")
def list_datasets() -> Catalog:
    """Return the datasets a job may train on."""
    return catalog.datasets()


@router.route("GET", "/schemas/job", "Read the schema of a job")
def get_job_schema() -> dict[str, Any]:
    """Return a job's JSON Schema; `x-unit` and `x-group` of a field say what a form shows beside it."""
    return _job_schema()


@router.route("GET", "/schemas/study", "Read the schema of a study")
def get_study_schema() -> dict[str, Any]:
    """Return a study's JSON Schema, marked as a job's."""
    return _study_schema()


@cache
def _job_schema() -> dict[str, Any]:
    return form.schema_of(JobSpec, JOB_GROUPS)


@cache
def _study_schema() -> dict[str, Any]:
    return form.schema_of(StudySpec, STUDY_GROUPS)
