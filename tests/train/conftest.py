"""What tests of the trainer share."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """As in the processes that tests start."""
