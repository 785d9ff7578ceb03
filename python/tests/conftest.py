"""Sessions for tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mobula

# Helpers for the tests of others.
collect_ignore = ["raypath"]


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One session for the tests of a file."""
    mobula.shutdown()
    mobula.init(num_cpus=2)
    yield
    mobula.shutdown()


@pytest.fixture
def fresh() -> Iterator[None]:
    """No session before the test, and none after it."""
    mobula.shutdown()
    yield
    mobula.shutdown()
