"""The verb ``compare``: one condition of two runs on the same problems under the same conditions, or a refusal that says why."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from trimtab.errors import ConfigError, InputError, StoreError
from trimtab.evaluation.breakdown import Breakdown, break_down
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.summary import finite
from trimtab.evaluation.verdict import ConditionVerdict, judge
from trimtab.store import AnyPath, RunDirectory, read_table
from trimtab.traces import Problem

MAY_DIFFER = (
    "model",
    "artifact",
    "traces",
    "contrast",
    "recording",
    "ranking",
    "gate",
    "tune",
    "task",
    "evaluation.random_sets",
    "evaluation.baselines",
    "evaluation.sft",
    "evaluation.seed",
)
"""Keys of ``run.toml`` that make a run what it is. All others decide how it was measured and have to agree.

``task`` is free because the problems themselves are compared; so the same problems may come from two files.
"""
LISTED = 5


@dataclass(frozen=True, slots=True)
class RunComparison:
    """One condition of run B against the same condition of run A.

    Args:
        runs: both folders, A first.
        models: the ``model.source`` of each.
        condition: what was compared.
        verdict: with A as the base.
        breakdowns: by domain and by difficulty.
    """

    runs: tuple[str, str]
    models: tuple[str, str]
    condition: str
    verdict: ConditionVerdict
    breakdowns: tuple[Breakdown, ...]

    @property
    def minimum_detectable_gain(self) -> float | None:
        """What these problems would show in 80 % of cases; None where they could show no gain of any size."""
        return finite(self.verdict.smallest_gain)

    @property
    def unscored(self) -> tuple[int, int]:
        """Unscored chains of A and of B."""
        return self.verdict.bounds[:2] if self.verdict.bounds else (0, 0)

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "runs": list(self.runs),
            "models": list(self.models),
            "condition": self.condition,
            "verdict": self.verdict.word,
            "sentence": self.verdict.sentence,
            "comparison": asdict(self.verdict.comparison),
            "minimum_detectable_gain": self.minimum_detectable_gain,
            "unscored": list(self.unscored),
            "bounds": self.verdict.ranges,
            "breakdowns": [asdict(table) for table in self.breakdowns],
        }


@dataclass(frozen=True, slots=True)
class _Run:
    path: AnyPath
    config: Mapping[str, object]
    problems: dict[str, Problem]
    outcomes: list[Outcome]


def compare_runs(run_a: AnyPath, run_b: AnyPath, condition: str) -> RunComparison:
    """Compare a condition of two finished evaluations, paired by problem.

    Args:
        run_a, run_b: run directories, or any folders with run.toml, problems.parquet and outcomes.parquet.
        condition: its name in both.

    Raises:
        ConfigError: problems, prompt, sampling or another setting of the measurement differ; each difference is listed.
        InputError: a run has no such condition.
        StoreError: a file is missing or damaged.
    """
    first, second = _read(run_a, condition), _read(run_b, condition)
    differences = [*_setting_differences(first.config, second.config), *_problem_differences(first, second)]
    if differences:
        raise ConfigError(
            f"{run_a} and {run_b} were not measured in the same way, so a difference between them would prove nothing:\n"
            + "\n".join(f"  {difference}" for difference in differences)
            + "\nevaluate both on the same problems with the same prompt and sampling"
        )
    alpha = _alpha(first)
    return RunComparison(
        runs=(str(run_a), str(run_b)),
        models=(_model(first.config), _model(second.config)),
        condition=condition,
        verdict=judge(first.outcomes, second.outcomes, alpha),
        breakdowns=break_down(first.outcomes, second.outcomes, alpha),
    )


def _read(path: AnyPath, condition: str) -> _Run:
    with RunDirectory.open(path) as directory:
        if not directory.outcomes.exists():
            raise StoreError(f"{directory.outcomes} does not exist; run `trimtab evaluate {path}` first")
        outcomes = read_table(directory.outcomes, Outcome)
        problems = {problem.id: problem for problem in read_table(directory.problems, Problem)}
        config = directory.config
    conditions = list(dict.fromkeys(outcome.condition for outcome in outcomes))
    if condition not in conditions:
        raise InputError(f"{path} has no condition {condition!r}; it has {', '.join(conditions)}")
    chosen = [outcome for outcome in outcomes if outcome.condition == condition]
    lost = [outcome.problem_id for outcome in chosen if outcome.problem_id not in problems]
    if lost:
        raise StoreError(f"{path} has outcomes of {len(lost)} problems that problems.parquet lacks, first {lost[0]!r}")
    return _Run(path, config, {outcome.problem_id: problems[outcome.problem_id] for outcome in chosen}, chosen)


def _setting_differences(first: Mapping[str, object], second: Mapping[str, object]) -> list[str]:
    before, after = dict(_flat(first)), dict(_flat(second))
    return [
        f"{key}: {before.get(key, '(not set)')} -> {after.get(key, '(not set)')}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key) and not any(key == free or key.startswith(f"{free}.") for free in MAY_DIFFER)
    ]


def _problem_differences(first: _Run, second: _Run) -> list[str]:
    alone = [
        f"problems: {len(only)} stand only in {run.path}: {_listed(only)}"
        for run, other in ((first, second), (second, first))
        if (only := [problem for problem in run.problems if problem not in other.problems])
    ]
    both = [(problem, second.problems[name]) for name, problem in first.problems.items() if name in second.problems]
    changed = [
        f"problems: {len(ids)} have another {field.name}: {_listed(ids)}"
        for field in fields(Problem)
        if (ids := [one.id for one, other in both if getattr(one, field.name) != getattr(other, field.name)])
    ]
    keys = [{outcome.key for outcome in run.outcomes} for run in (first, second)]
    chains = [] if keys[0] == keys[1] else [f"chains (seed, sample): {_chains(keys[0])} -> {_chains(keys[1])}"]
    return [*alone, *changed, *chains]


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
    return ", ".join(ids[:LISTED]) + more


def _chains(keys: set[tuple[int, int]]) -> str:
    return f"{len(keys)} a problem, {sorted(keys)[:LISTED]}"


def _flat(config: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted key and the text of its value, which tells 1 from 1.0."""
    flat: list[tuple[str, str]] = []
    for key, value in config.items():
        flat += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", repr(value))]
    return flat


def _section(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _model(config: Mapping[str, object]) -> str:
    return str(_section(config, "model").get("source", "unknown"))


def _alpha(run: _Run) -> float:
    alpha = _section(run.config, "evaluation").get("alpha")
    if not isinstance(alpha, float):
        raise ConfigError(f"{run.path} holds no level of the verdict: run.toml needs evaluation.alpha, a number such as 0.05")
    return alpha
