"""The settings: every default readable, every mistake named."""

from pathlib import Path

import pytest

from trimtab.errors import ConfigError
from trimtab.experiments import EXPERIMENT_NAMES
from trimtab.store import to_toml
from trimtab.study import DEMO, STAGES, Settings, check_until, load_settings, parse_settings
from trimtab.tasks.benchmarks import BENCHMARKS


def _load(folder: Path, text: str) -> Settings:
    (folder / "run.toml").write_text(text)
    return load_settings(folder / "run.toml")


def test_the_demo_has_enough_problems_for_a_verdict() -> None:
    assert DEMO.task.test >= 1000


@pytest.mark.parametrize("config", [DEMO, Settings()])
def test_a_written_configuration_reads_back(tmp_path: Path, config: Settings) -> None:
    assert _load(tmp_path, to_toml(config.model_dump(mode="json"))) == config


def test_sections_are_optional(tmp_path: Path) -> None:
    config = _load(tmp_path, '[model]\nsource = "some/model"\n[sampling]\nn = 3\n')
    assert (config.model.source, config.sampling.n) == ("some/model", 3)
    assert config.sampling.temperature == Settings().sampling.temperature


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[sampling]\ntemprature = 1.0\n", r"sampling\.temprature: unknown; did you mean temperature\?"),
        ("[sampler]\nn = 1\n", r"sampler: unknown; did you mean sampling\?"),
        ("[sampling]\nn = 0\n", r"sampling\.n: Input should be greater than or equal to 1 \(got 0\)"),
        ("[sampling]\ntop_p = 1.5\n", r"sampling\.top_p"),
        ('[tune]\nscope = "everywhere"\n', r"tune\.scope"),
        ('[gate]\nkind = "forest"\n', r"gate\.kind: .*'logistic', 'attention' or 'always' \(got 'forest'\)"),
        ("[evaluation]\nrandom_sets = 1\n", r"evaluation\.random_sets: .*greater than or equal to 5"),
    ],
)
def test_unknown_keys_and_bad_values_are_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"run\.toml has keys or values that are not accepted:\n  {named}"):
        _load(tmp_path, text)


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, "[sampling]\nn = 0\nm = 1\n[model]\nsize = 3\n")
    assert all(name in str(caught.value) for name in ("sampling.n", "sampling.m", "model.size"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"tune": {"k": []}}, "need at least one value each"),
        ({"tune": {"strengths": []}}, "need at least one value each"),
        ({"ranking": {"criteria": ["best"]}}, r"ranking\.criteria names \['best'\]; accepted: adaras"),
        ({"ranking": {"criteria": []}}, r"ranking\.criteria names nothing"),
        ({"ranking": {"scope": "all"}}, r"ranking\.scope 'all' is not recorded; add it to recording\.scopes"),
        ({"recording": {"moments": ["square"]}}, r"lacks 'sum', which every criterion reads"),
        ({"ranking": {"criteria": ["wanda"]}}, r"names 'wanda', which reads the moments \['square'\]; add them to recording"),
        ({"ranking": {"criteria": ["cett"]}}, r"names 'cett', which reads the moments \['contribution'\]; add them to recording"),
        (
            {"recording": {"moments": ["sum", "contribution"], "while_sampling": True}},
            r"'contribution', which reads what the FFN writes, .*; leave recording\.while_sampling out",
        ),
        ({"ranking": {"criteria": ["mathneuro"]}, "recording": {"moments": ["sum"]}}, r"reads the moments \['magnitude'\]"),
    ],
)
def test_sections_that_do_not_fit_together_are_refused_before_anything_runs(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings(data, "run.toml")


@pytest.mark.parametrize(
    ("k", "message"),
    [
        ([5, 60], r"tune\.k \(5, 60\) must lie between 1 and ranking\.k, which is 50"),
        ([0], r"tune\.k \(0,\) must lie between 1"),
    ],
)
def test_a_grid_of_more_neurons_than_are_ranked_is_refused_where_it_is_used(k: list[int], message: str) -> None:
    settings = parse_settings({"tune": {"k": k}}, "run.toml")
    assert check_until(settings, "rank") == "rank"
    with pytest.raises(ConfigError, match=message):
        check_until(settings, "tune")


def test_an_import_may_keep_fewer_neurons_than_the_grid_would_need() -> None:
    config = parse_settings({"traces": {"path": "t.jsonl"}, "ranking": {"k": 3}}, "run.toml")
    assert config.ranking.k == 3


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML"):
        _load(tmp_path, "n = = 3")
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot read"):
        load_settings(tmp_path / "run.toml")


def test_check_until() -> None:
    imported = parse_settings({"traces": {"path": "t.jsonl"}}, "f")
    for stage in STAGES:
        assert check_until(Settings(experiments=("ablate",)), stage) == stage
    with pytest.raises(ConfigError, match="the settings name no experiments"):
        check_until(Settings(), "experiments")
    for stage in STAGES[:6]:
        assert check_until(imported, stage) == stage
    for stage in STAGES[6:]:
        with pytest.raises(ConfigError, match=r"a run on imported traces ends with `rank`.*use --until rank"):
            check_until(imported, stage)


def test_a_benchmark_fills_in_its_prompt_and_sampling() -> None:
    declared = BENCHMARKS["gsm8k"]
    config = parse_settings({"task": {"source": "gsm8k"}, "sampling": {"n": 3}}, "here")
    assert config.prompt == declared.prompt
    assert (config.sampling.n, config.sampling.temperature) == (3, declared.decoding.temperature)
    assert config.sampling.max_new_tokens == declared.decoding.max_new_tokens
    assert (
        parse_settings({"task": {"source": "gsm8k"}, "prompt": {"template": "<{question}>"}}, "here").prompt.template
        == "<{question}>"
    )
    assert parse_settings(config.model_dump(mode="json"), "stored") == config


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"n": 4}, "set evaluation.temperature"),
        ({"seeds": [1, 2]}, "set evaluation.temperature"),
        ({"seeds": [1, 1], "temperature": 0.5}, "holds one seed twice"),
        ({"instruction": "check"}, "exactly once"),
        ({"baselines": ["prayer"]}, "prompt-only"),
    ],
)
def test_responses_of_an_evaluation(evaluation: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings({"evaluation": evaluation}, "here")


def test_all_experiments_by_one_word() -> None:
    assert parse_settings({"experiments": "all"}, "f").experiments == EXPERIMENT_NAMES
    assert parse_settings({"experiments": ["causal"]}, "f").stages[-2:] == ("experiments", "report")
    assert "experiments" not in Settings().stages
    with pytest.raises(ConfigError, match="experiments"):
        parse_settings({"experiments": ["other"]}, "f")
    with pytest.raises(ConfigError, match="experiments need a run that samples its own traces"):
        parse_settings({"experiments": "all", "traces": {"path": "t.jsonl"}}, "f")
