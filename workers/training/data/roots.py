"""Where datasets' files must lie, and the error a person gets when they do not."""

from pathlib import Path

from xsam.workers.messages import RankContext
from xsam.workers.training.errors import DatasetMissingError


def root_of(context: RankContext, dataset: str) -> Path:
    """Return the dataset root.

    Raises:
        DatasetMissingError: none is configured.
    """
    if context.dataset_root is None:
        raise DatasetMissingError(
            f"dataset {dataset} is read from files, but no dataset root is configured; "
            "the operator sets XSAM_TRAINING__DATASET_ROOT to a folder that all workers see"
        )
    return context.dataset_root


def require_files(dataset: str, root: Path, paths: list[Path], *, remedy: str) -> None:
    """Check that every path exists.

    Raises:
        DatasetMissingError: one does not; names it, the layout's other paths and what can be done.
    """
    missing = next((path for path in paths if not path.exists()), None)
    if missing is None:
        return
    layout = ", ".join(str(path.relative_to(root)) for path in paths)
    raise DatasetMissingError(
        f"dataset {dataset}: {missing} does not exist. Expected below the dataset root {root} are: {layout}. "
        f"{remedy}, or point XSAM_TRAINING__DATASET_ROOT at the folder that holds them"
    )
