"""All trials of a study as one table, for notebooks: CSV or Parquet."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xsam.services.studies.schemas import TrialRead

_FIXED = (
    "id",
    "number",
    "arm",
    "phase",
    "config",
    "seed",
    "state",
    "value",
    "grad_evals",
    "epochs_done",
    "num_epochs",
    "train_s",
    "is_stopped_early",
    "started_at",
    "finished_at",
)


def as_csv(trials: Sequence[TrialRead]) -> str:
    """Return one line for each trial, a `params.` column for each searched field."""
    rows = [_flat(trial) for trial in trials]
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def as_parquet(trials: Sequence[TrialRead]) -> bytes:
    """Return the same table as a Parquet file; values that are no numbers or words are JSON text."""
    rows = [_flat(trial) for trial in trials]
    columns = {name: _of_one_kind([_plain(row.get(name)) for row in rows]) for name in _columns(rows)}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _flat(trial: TrialRead) -> dict[str, Any]:
    row = {name: getattr(trial, name) for name in _FIXED}
    row["failure_kind"] = None if trial.failure is None else str(trial.failure.kind)
    row["failure_message"] = None if trial.failure is None else trial.failure.message
    return {**row, **{f"params.{path}": value for path, value in trial.params.items()}}


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of all columns, those that every trial has first."""
    names = dict.fromkeys([*_FIXED, "failure_kind", "failure_message"])
    for row in rows:
        names |= dict.fromkeys(row)
    return list(names)


def _of_one_kind(values: list[Any]) -> list[Any]:
    """Return a column that Parquet can hold: words and numbers mixed become JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values] if float in kinds else values
    return values if len(kinds) <= 1 else [None if value is None else json.dumps(value) for value in values]


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    text = _plain(value)
    # A spreadsheet would run a text that begins like a formula.
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
