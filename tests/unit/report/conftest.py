"""Fixtures of the report's tests."""

import pytest

from report_sample import make_report
from trimtab.report import Report


@pytest.fixture
def report() -> Report:
    """A report with every section filled."""
    return make_report()


@pytest.fixture
def no_plotly_js(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave plotly's five megabytes out of the page."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "/* plotly */")
