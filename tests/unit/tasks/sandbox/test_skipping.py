"""Where no sandbox runs, tests of code are skipped by name, and fail where TRIMTAB_REQUIRE_SANDBOX=1 says that one must run."""

import importlib.util
from pathlib import Path

import pytest

from trimtab.tasks.sandbox import NoSandboxError, SandboxError

CONFTEST = Path(__file__).parents[3] / "conftest.py"


def report_of(item: pytest.Item, error: Exception, report: pytest.TestReport) -> pytest.TestReport:
    """What becomes of the report on a test that raised ``error``."""
    spec = importlib.util.spec_from_file_location("root_conftest", CONFTEST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def fail() -> None:
        raise error

    call = pytest.CallInfo.from_call(fail, "call")
    hook = module.pytest_runtest_makereport(item, call)
    next(hook)
    with pytest.raises(StopIteration) as stopped:
        hook.send(report)
    return stopped.value.value


@pytest.mark.parametrize(
    ("error", "required", "outcome"),
    [
        (NoSandboxError("bwrap: not installed"), "", "skipped"),
        (NoSandboxError("bwrap: not installed"), "1", "failed"),
        (SandboxError("the self-test worked at something"), "", "failed"),
    ],
)
def test_only_a_machine_without_a_sandbox_skips(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, error: Exception, required: str, outcome: str
) -> None:
    monkeypatch.setenv("TRIMTAB_REQUIRE_SANDBOX", required)
    made = pytest.TestReport("a test", ("a.py", 1, "a test"), {}, "failed", None, "call")
    report = report_of(request.node, error, made)
    assert report.outcome == outcome
    assert outcome != "skipped" or report.longrepr[2] == "Skipped: bwrap: not installed"  # type: ignore[index]
