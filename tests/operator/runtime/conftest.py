"""Fixtures of the runtime's tests."""

from tests.operator.adapters.releases.conftest import installation

__all__ = ["installation"]
