"""What may be said about the executor, in a file and on the command line."""

import pytest
from pydantic import ValidationError

from trimtab.errors import ConfigError
from trimtab.execution import ExecutorSettings, with_choice
from trimtab.study import Settings, parse_settings, with_executor


def test_the_command_line_wins_over_the_file_key_by_key() -> None:
    base = ExecutorSettings(kind="ray", address="10.0.0.1:6379", actors=4, num_gpus=1.0)
    chosen = with_choice(base, "ray,actors=8,num_cpus=0.5,batch_size=3")
    assert chosen == ExecutorSettings(kind="ray", address="10.0.0.1:6379", actors=8, num_gpus=1.0, num_cpus=0.5, batch_size=3)
    assert with_choice(base, "local") == base.model_copy(update={"kind": "local"})


@pytest.mark.parametrize(
    "choice",
    ["spark", "ray,workers=3", "processes,actors=2", "local,workers=1", "ray,actors=many", "ray,actors", "ray,num_cpus=-1", ""],
)
def test_a_bad_choice_names_what_is_accepted(choice: str) -> None:
    with pytest.raises(ConfigError, match="such as processes,workers=4 or ray,actors=8,num_gpus=1"):
        with_choice(ExecutorSettings(), choice)


def test_the_executor_is_no_part_of_what_a_run_directory_keeps() -> None:
    ray = parse_settings({"executor": {"kind": "ray", "actors": 3}}, "the test")
    assert ray.executor.actors == 3
    assert ray.stored() == Settings().stored()
    assert "executor" not in ray.stored()
    assert with_executor(ray, None) is ray
    assert with_executor(ray, "local").executor.kind == "local"


def test_an_unknown_key_in_the_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"executor\.nodes"):
        parse_settings({"executor": {"nodes": 3}}, "the test")
    with pytest.raises(ValidationError):
        ExecutorSettings(batch_size=0)
