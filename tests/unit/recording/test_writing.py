"""One job at a time, in order, beside the caller."""

import threading

import pytest

from trimtab.recording.record import Job, in_background


def _run(*jobs: Job, error: BaseException | None = None) -> None:
    """Start the jobs and then fail with the error, if there is one."""
    with in_background() as start:
        for job in jobs:
            start(job)
        if error is not None:
            raise error


def test_a_job_runs_beside_the_caller_and_the_next_waits_for_it() -> None:
    log, release, started = [], threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        assert release.wait(10)
        log.append("first")

    with in_background() as start:
        start(slow)
        assert started.wait(10)
        log.append("caller")
        release.set()
        start(lambda: log.append("second"))
    assert log == ["caller", "first", "second"]


def test_an_error_ends_the_block_and_no_later_job_runs() -> None:
    log = []

    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        _run(fail, lambda: log.append("later"))
    assert log == []


def test_the_error_of_the_last_job_is_raised_too() -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        _run(fail)


def test_what_was_started_is_finished_when_the_block_fails() -> None:
    log = []
    with pytest.raises(KeyboardInterrupt):
        _run(lambda: log.append("written"), error=KeyboardInterrupt())
    assert log == ["written"]


def test_the_error_of_the_block_wins() -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(KeyboardInterrupt):
        _run(fail, error=KeyboardInterrupt())
