"""What a job may name: optimizers, models and datasets with the JSON Schema of their options."""

from xsam.api.http.router import Router
from xsam.services.specs import catalog
from xsam.services.specs.catalog import Catalog

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
