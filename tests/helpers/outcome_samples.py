"""Outcomes made by hand, a string per response and a character per problem, and the folders of runs that hold them."""

from collections.abc import Sequence
from pathlib import Path

from trimtab.evaluation.outcomes import Outcome
from trimtab.store import to_toml, write_table, write_text
from trimtab.traces import Problem, Score, Split

CONFIG = {
    "model": {"source": "one"},
    "task": {"source": "local:a.jsonl", "train": 10},
    "prompt": {"template": "{question}", "thinking": "on"},
    "sampling": {"max_new_tokens": 100, "temperature": 0.7},
    "evaluation": {"alpha": 0.05, "random_sets": 5, "control_problems": 100, "seeds": [0]},
    "tune": {"k": [5]},
}
SCORES = {"1": Score.CORRECT, "u": Score.UNSCORED}


def outcomes(
    condition: str,
    *responses: str,
    domains: Sequence[str] = ("even", "odd"),
    difficulty: int = 2,
    fired: str = "",
    steps: str = "",
    start: int = 0,
    seed: int = 0,
) -> list[Outcome]:
    """Problems p0, p1, ... in turn of the domains; 1 correct, 0 incorrect, u unscored, t truncated. Responses are numbered."""
    return [
        Outcome(
            condition=condition,
            problem_id=f"p{start + i}",
            domain=domains[i % len(domains)],
            difficulty=difficulty,
            score=SCORES.get(pattern[i], Score.INCORRECT),
            reason="",
            answer="",
            response="",
            tokens=10 + i,
            truncated=pattern[i] == "t",
            steps_right=None if not steps else steps[i] == "1",
            p_fail=0.5 if fired else None,
            fired=None if not fired else fired[i] == "1",
            sample=sample,
            seed=seed,
        )
        for i in range(len(responses[0]))
        for sample, pattern in enumerate(responses)
    ]


def run_folder(path: Path, rows: list[Outcome], **sections: dict[str, object]) -> Path:
    """The folder of a run with what a comparison reads; the keys differ from run to run, as its settings do."""
    config = {**CONFIG, **{name: {**CONFIG.get(name, {}), **values} for name, values in sections.items()}}
    problems = {row.problem_id: Problem(row.problem_id, f"question {row.problem_id}", "7", Split.TEST) for row in rows}
    key = f"problems/{len(problems):024x}"
    write_table(path / key / "problems.parquet", [*problems.values(), Problem("f", "of the train split", "1", Split.TRAIN)])
    write_table(path / "outcomes.parquet", rows)
    write_text(path / "run.toml", to_toml({**config, "keys": {"problems": key, "evaluate": f"evaluate/{path.name}"}}))
    return path
