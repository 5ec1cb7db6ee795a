"""Result files of the real tools, from lists of right and wrong documents."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

PUBLISHED = ([True] * 68 + [False] * 30 + [True] * 12 + [False] * 110, [True] * 98 + [False] * 122)
"""n = 220 with 30 fixed and 12 broken, as lm-evaluation-harness #3868 reports: p = 0.080 by the unpaired z, 0.008 paired."""


def write_rows(file: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def simple_rows(pattern: str, **columns: object) -> list[dict[str, object]]:
    """Documents 0, 1, ...: 1 correct, 0 incorrect, u unscored."""
    scores = {"1": True, "0": False, "u": None}
    return [{"id": i, "correct": scores[one], **columns} for i, one in enumerate(pattern)]


def harness_folder(
    folder: Path, right: Sequence[bool], *, task: str = "tiny", few_shots: int = 0, version: int = 1, question: str = "question"
) -> Path:
    """What ``lm_eval --log_samples --output_path`` writes, by the harness itself with a model that answers as it is told."""
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    class Told(LM):
        def loglikelihood(self, requests):
            raise NotImplementedError

        def loglikelihood_rolling(self, requests):
            raise NotImplementedError

        def generate_until(self, requests, disable_tqdm=False):
            return [f"answer {one.doc['id']}" if right[one.doc["id"]] else "no idea" for one in requests]

    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": i, "question": f"{question} {i}", "answer": f"answer {i}"} for i in range(len(right))]
    data = write_rows(folder.parent / f"{folder.name}-{task}.data", rows)
    config = {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder.parent / "cache")},
        "test_split": "test",
        "fewshot_split": "test",
        "num_fewshot": few_shots,
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": []},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": "strict", "filter": [{"function": "take_first"}]},
            {"name": "lower", "filter": [{"function": "lowercase"}, {"function": "take_first"}]},
        ],
        "metadata": {"version": version},
    }
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name = tracker.general_config_tracker.model_name_sanitized = "told"
    results = simple_evaluate(
        model=Told(),
        tasks=[config],
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    assert results is not None
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for name, logged in samples.items():
        tracker.save_results_samples(task_name=name, samples=logged)
    return folder


def inspect_log(folder: Path, right: Sequence[bool], *, epochs: int = 1, kind: str = "eval", partial: bool = False) -> Path:
    """A log that Inspect's own ``eval`` writes, of a solver that answers as it is told."""
    from inspect_ai import Task
    from inspect_ai import eval as evaluate
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score, accuracy, match, scorer
    from inspect_ai.solver import Solver, solver

    @solver
    def told() -> Solver:
        async def solve(state, generate):
            state.output = ModelOutput.from_content("told", "yes" if right[int(state.sample_id)] else "no")
            return state

        return solve

    @scorer(metrics=[accuracy()])
    def length():
        async def score(state, target):
            return Score(value=len(state.output.completion))

        return score

    dataset = [Sample(id=i, input=f"question {i}", target="yes") for i in range(len(right))]
    scorers = [match(), length()] if partial else match()
    task = Task(dataset=dataset, solver=told(), scorer=scorers, name="tiny", version=3)
    (log,) = evaluate(
        task, model="mockllm/model", log_dir=str(folder), display="none", log_format=kind, epochs=epochs, log_level="error"
    )
    assert log.status == "success", log.error
    return next(folder.glob(f"*.{kind}"))
