"""The model card of the bundled models, from their greedy answers: ``python benchmarks/testbed_card.py``.

Writes src/trimtab/testbed/models/README.md: accuracy per domain and per number of steps, step accuracy, sources of the failures.
"""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from trimtab.model import open_model
from trimtab.sampling import SamplingSettings, sample_traces
from trimtab.tasks import ExactGrader, grade_traces, load_problems
from trimtab.tasks.loading import TaskSettings
from trimtab.testbed.chains import StepReport, check_steps
from trimtab.testbed.models import names, resolve
from trimtab.testbed.problems import TestbedProblem, parse
from trimtab.testbed.sources import failure_sources
from trimtab.testbed.wordings import most_careful
from trimtab.traces import Problem, Trace

GREEDY = SamplingSettings(n=1, temperature=0.0, max_new_tokens=110, batch_tokens=70_000)
HEAD = """---
library_name: transformers
license: apache-2.0
pipeline_tag: text-generation
---
# The testbed's models

Small Qwen3-architecture reasoners, trained from fixed seeds by `python -m trimtab.testbed.train NAME --out FOLDER` on procedural
tasks that `trimtab.testbed` generates. They are a positive control and a negative control for measuring tools. They can do
nothing else, and a gain on them says nothing about other models. Written by `python benchmarks/testbed_card.py`; greedy answers
to {n} problems of the test split, none of which was in the training text.
"""


def reports_of(problems: list[Problem], traces: list[Trace]) -> list[StepReport]:
    """The step checker's report for every trace."""
    return [check_steps(parse(p.question), t.text) for p, t in zip(problems, traces, strict=True)]


def table(rows: dict[str, dict[str, str]], first: str) -> str:
    """A markdown table; missing cells stay empty."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| {first} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(row.get(c, '') for c in columns)} |" for name, row in rows.items()]
    return "\n".join(lines)


def shares(problems: list[Problem], right: list[bool], key: Callable[[Problem], str]) -> dict[str, str]:
    """Accuracy with n per group."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for problem, ok in zip(problems, right, strict=True):
        groups[key(problem)].append(ok)
    return {name: f"{sum(group) / len(group):.3f} ({len(group)})" for name, group in sorted(groups.items())}


@click.command()
@click.option("--n", default=1200, show_default=True, help="Problems of the test split.")
def main(n: int) -> None:
    """Answer the test split with every bundled model and write the card."""
    problems = load_problems(TaskSettings(train=0, validation=0, test=n))
    careful = [
        replace(p, question=TestbedProblem(i := parse(p.question).instance, most_careful(i.domain)[k % 5]).question)
        for k, p in enumerate(problems)
    ]
    summary, by_domain, by_steps, recipes = {}, {}, {}, {}
    for name in names():
        model = open_model(f"testbed:{name}")
        with tempfile.TemporaryDirectory() as folder:
            traces = sample_traces(model, problems, GREEDY, Path(folder) / "test")
            careful_traces = sample_traces(model, careful, GREEDY, Path(folder) / "careful")
        right = [g.score == "correct" for g in grade_traces(traces, {p.id: p for p in problems}, ExactGrader())]
        answers = [(p.id, p.question, t.text, ok) for p, t, ok in zip(problems, traces, right, strict=True)]
        sources = Counter(row.source for row in failure_sources(answers))
        steps = reports_of(careful, careful_traces)
        summary[name] = {
            "parameters": f"{sum(p.numel() for p in model.hf_model.parameters()):,}",
            "accuracy": f"{sum(right) / n:.3f}",
            "step accuracy, most careful wordings": f"{sum(r.right for r in steps) / sum(r.written for r in steps):.3f}",
            **{f"failures by {source}": str(sources[source]) for source in ("mode", "content", "capacity")},
        }
        by_domain[name] = shares(problems, right, lambda p: p.domain)
        by_steps[name] = shares(problems, right, lambda p: f"{p.difficulty:02d}")
        recipes[name] = {k: str(v) for k, v in json.loads((Path(resolve(f"testbed:{name}")) / "recipe.json").read_text()).items()}
    sections = (
        ("Accuracy and failures", table(summary, "model")),
        ("Accuracy by domain (n)", table(by_domain, "model")),
        ("Accuracy by number of steps (n)", table(by_steps, "model")),
        ("Recipes", table(recipes, "model")),
    )
    card = HEAD.format(n=n) + "".join(f"\n## {title}\n\n{body}\n" for title, body in sections)
    path = Path(__file__).parent.parent / "src/trimtab/testbed/models/README.md"
    path.write_text(card)
    click.echo(card)


if __name__ == "__main__":
    main()
