"""The documents name files that exist: a map with roads that are gone is worse than none."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "tests/bench/README.md",
    "deploy/examples/README.md",
    "deploy/docs/operations.md",
)
_IN_REPOSITORY = re.compile(r"(?<![\w./-])(?:xsam_core|services|workers|api|deploy|tests)/[\w./-]*")
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document__names_only_what_exists(name: str) -> None:
    document = ROOT / name
    text = document.read_text()
    prose = re.sub(r"```console.*?```", "", text, flags=re.S)  # transcripts speak of the reader's own files
    named = {ROOT / path.rstrip(".") for path in re.findall(_IN_REPOSITORY, prose)}
    linked = {document.parent / path for path in re.findall(_LINK, text)}
    assert len(named | linked) > 0
    assert sorted(str(path.relative_to(ROOT)) for path in named | linked if not path.exists()) == []
