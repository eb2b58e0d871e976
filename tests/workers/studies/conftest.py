"""Studies on the room's live service."""

import pytest

from tests.support.live_service import LiveService
from tests.support.live_studies import LiveStudies


@pytest.fixture
def studies(live: LiveService) -> LiveStudies:
    """The session's live service, with a study's runner warm."""
    return LiveStudies(live)
