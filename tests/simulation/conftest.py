"""Thousands of lives and deaths are not logged."""

import logging

import pytest
import structlog


@pytest.fixture(autouse=True)
def _silent() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
