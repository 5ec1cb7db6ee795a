"""Fixtures shared by all tests."""

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# lets every test import the helper modules, whatever pytest's import mode
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from transformers import PreTrainedModel

from tiny_models import FAMILIES, tiny

# how long an example takes says how busy the machine is, not whether the code is right
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that needs a sandbox is skipped where none runs, unless TRIMTAB_REQUIRE_SANDBOX=1 says that one must."""
    report = yield
    if call.excinfo is None or os.environ.get("TRIMTAB_REQUIRE_SANDBOX") == "1":
        return report
    from trimtab.tasks.sandbox import NoSandboxError

    if isinstance(call.excinfo.value, NoSandboxError):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {call.excinfo.value}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many inputs the suites of damage tried, which they hand over as the property ``tried``."""
    reports = [report for found in terminalreporter.stats.values() for report in found if getattr(report, "when", "") == "call"]
    for report in reports:
        for name, value in report.user_properties:
            if name == "tried":
                terminalreporter.write_line(f"tried: {value}")


@pytest.fixture
def qwen3() -> PreTrainedModel:
    """A tiny random Qwen3."""
    return tiny("qwen3")


@pytest.fixture(params=FAMILIES)
def tiny_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny random model of each family in turn."""
    return tiny(request.param)
