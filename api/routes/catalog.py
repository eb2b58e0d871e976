"""What a job may name: optimizers, models and datasets with the JSON Schema of their options."""

from fastapi import APIRouter, Depends

from xsam.api.http.dependencies import no_query
from xsam.api.http.problems import documented
from xsam.services.specs import catalog
from xsam.services.specs.catalog import Catalog

router = APIRouter(
    prefix="/v1",
    tags=["catalog"],
    dependencies=[Depends(no_query)],
    responses=documented("invalid_request", "internal_error"),
)


@router.get("/optimizers", operation_id="listOptimizers", summary="List the optimizers")
def list_optimizers() -> Catalog:
    """Return the optimizer variants; base optimizers (SGD, AdamW, ...) are part of each one's schema."""
    return catalog.optimizers()


@router.get("/models", operation_id="listModels", summary="List the models")
def list_models() -> Catalog:
    """Return the networks a job may train."""
    return catalog.models()


@router.get("/datasets", operation_id="listDatasets", summary="List the datasets")
def list_datasets() -> Catalog:
    """Return the datasets a job may train on."""
    return catalog.datasets()
