"""The verb ``sample``: order, plan, resume."""

from pathlib import Path

import pytest

from tiny_testbed import settings, some_problems, tree_bytes
from trimtab.errors import ConfigError
from trimtab.model import LanguageModel
from trimtab.sampling import generator as module
from trimtab.sampling import plan_requests, read_traces, sample_traces
from trimtab.store import Parts

SAMPLED = settings(n=3, temperature=1.0)


def test_traces_come_in_the_order_of_the_problems(model: LanguageModel, tmp_path: Path) -> None:
    problems = some_problems(8)
    traces = sample_traces(model, problems, SAMPLED, tmp_path)
    assert [trace.id for trace in traces] == [f"{p.id}/{s}" for p in problems for s in range(3)]
    assert [trace.problem_id for trace in traces] == [p.id for p in problems for _ in range(3)]
    assert len(Parts(tmp_path).plan.parts) > 2
    assert sorted(t.id for t in read_traces(tmp_path)) == sorted(t.id for t in traces)
    assert len({trace.response_ids for trace in traces}) > 12, "samples of one problem must differ"
    for trace in traces:
        assert trace.truncated == (trace.finish == "length")
        assert model.tokenizer.decode(trace.response_ids, skip_special_tokens=True) == trace.text


def test_other_batches_sample_the_same_chains(model: LanguageModel, tmp_path: Path) -> None:
    problems = some_problems(6)
    small = sample_traces(model, problems, SAMPLED, tmp_path / "small")
    large = sample_traces(model, problems[::-1], settings(n=3, temperature=1.0, batch_tokens=9000), tmp_path / "large")
    assert {t.id: t.response_ids for t in small} == {t.id: t.response_ids for t in large}


def test_resume_after_an_exception_ends_with_the_same_bytes(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = some_problems(8)
    sample_traces(model, problems, SAMPLED, tmp_path / "undisturbed")
    calls = []

    def interrupted(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(*args, **options)

    generate = module.generate_batch
    monkeypatch.setattr(module, "generate_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample_traces(model, problems, SAMPLED, tmp_path / "resumed")
    assert len(list((tmp_path / "resumed").glob("part-*"))) == 2
    progress: list[tuple[int, int]] = []

    class Bar:
        def __init__(self, label: str, total: int, done: int = 0) -> None:
            progress.append((total, done))

        def __enter__(self):
            return lambda items, tokens: None

        def __exit__(self, *args: object) -> None: ...

    sample_traces(model, problems, SAMPLED, tmp_path / "resumed", progress=Bar)
    assert tree_bytes(tmp_path / "resumed") == tree_bytes(tmp_path / "undisturbed")
    assert progress[0][0] == 24
    assert 0 < progress[0][1] < 24


@pytest.mark.parametrize("change", [{"seed": 1}, {"temperature": 0.9}, {"top_p": 0.5}, {"batch_tokens": 500}, {"n": 2}])
def test_other_settings_do_not_resume(model: LanguageModel, tmp_path: Path, change: dict[str, object]) -> None:
    problems = some_problems(2)
    sample_traces(model, problems, SAMPLED, tmp_path)
    with pytest.raises(ConfigError, match=next(iter(change))):
        sample_traces(model, problems, SAMPLED.model_copy(update=change), tmp_path)


def test_facts_are_part_of_the_plan(model: LanguageModel) -> None:
    problems = some_problems(2)
    plain, facts = (plan_requests(model, problems, SAMPLED, facts=f)[1] for f in (None, {"condition": "always"}))
    assert plain.digest != facts.digest
