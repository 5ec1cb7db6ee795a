"""``trimtab tasks``."""

from typing import TYPE_CHECKING

import click

from trimtab.cli.options import output_options, task_options
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from trimtab.tasks.benchmark import Benchmark
    from trimtab.tasks.checking import Control
    from trimtab.tasks.repositories import Provenance
    from trimtab.tasks.settings import TaskSettings
    from trimtab.tasks.splits import SplitFacts
    from trimtab.traces import Problem

ALL = 10**9
SHOWN_PAIRS = 10


@click.group("tasks", invoke_without_command=True)
@output_options
@click.pass_context
def tasks(context: click.Context, as_json: bool, quiet: bool) -> None:
    """List the benchmarks, or show and check one.

    A SOURCE is the name of a benchmark, testbed, local:PATH, a .jsonl or .parquet file with questions and answers, or gym:NAME, a
    family of problems that reasoning-gym generates.
    """
    if context.invoked_subcommand is not None:
        return
    from trimtab.tasks.benchmarks import BENCHMARKS

    rows = [("name", "answer", "domains", "train and validation", "test")]
    rows += [(b.name, b.kind.value, str(len(b.domains) or ""), _from(b, "train"), _from(b, "test")) for b in BENCHMARKS.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    Output(as_json, quiet).data([_described(b) for b in BENCHMARKS.values()], "\n".join(lines))


def _source_options(command: "Callable[..., None]") -> "Callable[..., None]":
    named = "A parameter of a gym: family, as JSON; may be given several times."
    command = click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", callback=_parameters, help=named)(
        command
    )
    return task_options(click.option("--revision", default="", help="Commit of the benchmark's repository.")(command))


def _parameters(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, object]:  # noqa: ARG001
    from trimtab.store import parse_json

    found: dict[str, object] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        try:
            found[name] = parse_json(value)
        except ValueError:
            found[name] = value
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is no NAME=VALUE, such as max_terms=3")
    return found


@tasks.command("show")
@click.argument("source")
@click.option("--n", type=click.IntRange(min=1), default=3, show_default=True, help="How many problems.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="train", show_default=True)
@click.option("--model", default="", help="Render with its chat template: a hub id, a folder, a GGUF file or testbed:NAME.")
@_source_options
@output_options
def show(
    source: str,
    n: int,
    split: str,
    model: str,
    answer: str,
    data: str,
    revision: str,
    parameters: dict[str, object],
    as_json: bool,
    quiet: bool,
) -> None:
    """Print prompts of SOURCE as a model reads them, with the gold answers.

    The train split is shown unless you ask for another one: a test split that was read is no longer unseen.
    """
    from trimtab.tasks.loading import load_task, task_prompt

    counts = {name: n if name == split else 0 for name in ("train", "validation", "test")}
    settings = _settings(source=source, answer=answer, data=data, revision=revision, parameters=parameters, **counts)
    prompt = task_prompt(settings)
    render = _template_of(model, settings) if model else prompt.wrap
    shown = [_shown(problem, render(problem.question)) for problem in load_task(settings).problems]
    lines = []
    for one in shown:
        lines += [f"--- {one['id']} ({', '.join(filter(None, (str(one['domain']), str(one['kind']))))})", str(one["prompt"])]
        lines += [f"--- gold: {one['answer']}", ""]
    facts = {"source": source, "prompt": prompt.model_dump(), "problems": shown}
    Output(as_json, quiet).data(facts, "\n".join(lines).rstrip())


@tasks.command("check")
@click.argument("source")
@click.option("--threshold", type=click.FloatRange(0, 1, min_open=True), help="Least similarity of near-duplicates.")
@click.option("--graders", is_flag=True, help="Grade answers whose score is known: golds, those of others, none, constants.")
@_source_options
@output_options
def check(
    source: str,
    threshold: float | None,
    graders: bool,
    answer: str,
    data: str,
    revision: str,
    parameters: dict[str, object],
    as_json: bool,
    quiet: bool,
) -> None:
    """Read all of SOURCE and print its splits, what was left out, its digest, the problems that stand in two splits, rows that
    look broken, and the share of gold answers that are compared as text.
    """
    from trimtab.errors import InputError
    from trimtab.tasks.checking import compared_as_text, graders_hold, suspicions
    from trimtab.tasks.loading import load_task
    from trimtab.tasks.near_duplicates import THRESHOLD
    from trimtab.tasks.settings import GYM, TESTBED
    from trimtab.tasks.splits import split_facts

    # the testbed and reasoning-gym make as many problems as they are asked for
    counts = {} if source == TESTBED or source.startswith(GYM) else {"train": ALL, "validation": ALL, "test": ALL}
    loaded = load_task(_settings(source=source, answer=answer, data=data, revision=revision, parameters=parameters, **counts))
    found = split_facts(loaded.problems, threshold or THRESHOLD)
    odd, as_text = suspicions(loaded.problems, source), compared_as_text(loaded.problems)
    controls = graders_hold(loaded.problems) if graders else []
    facts = {
        "source": loaded.provenance.to_json(),
        **found.to_json(),
        "suspicions": [suspicion._asdict() for suspicion in odd],
        "compared_as_text": [problem.id for problem in as_text],
        "controls": [control.to_json() for control in controls],
    }
    lines = [*_source_lines(loaded.provenance), *_split_lines(found, loaded.problems)]
    lines += [f"row {suspicion.problem_id}: {suspicion.what}" for suspicion in odd]
    lines += _text_lines(as_text, len(loaded.problems)) + [_control_line(control) for control in controls]
    Output(as_json, quiet).data(facts, "\n".join(lines))
    failed = [control.name for control in controls if control.failed]
    if failed:
        raise InputError(
            f"the graders fail {len(failed)} controls of {source}: {', '.join(failed)}; look at the problems named above"
        )


def _source_lines(provenance: "Provenance") -> list[str]:
    lines = []
    for origin in provenance.origins:
        place = " ".join(filter(None, (origin.where, origin.config, origin.split)))
        lines.append(f"{place}: {origin.rows} rows" + (f", commit {origin.revision}" if origin.revision else ""))
    lines += [f"left out: {n}, because {reason}" for reason, n in provenance.left_out.items()]
    return [*lines, f"digest: {provenance.digest}"]


def _split_lines(found: "SplitFacts", problems: "list[Problem]") -> list[str]:
    from trimtab.tasks.near_duplicates import EARLIER, MEASURE

    lines = ["problems: " + ", ".join(f"{split} {n}" for split, n in found.problems.items())]
    lines.append(f"near-duplicates ({MEASURE}, at least {found.threshold}):")
    for split, earlier in EARLIER.items():
        kinds = ", ".join(f"{n} {kind}" for kind, n in found.shared(split).items())
        lines.append(f"  {split} problems that stand in {' or '.join(earlier)}: {kinds}, of {found.problems[split]}")
    for split in EARLIER:
        alike = [ids for ids in found.within.values() if {p.id for p in problems if p.split is split} >= set(ids)]
        if alike:
            lines.append(
                f"  {split} problems that are near-duplicates of each other: {sum(map(len, alike))} in {len(alike)} clusters, "
                f"each of which counts once in a paired test: {'; '.join(', '.join(ids) for ids in alike[:SHOWN_PAIRS])[:300]}"
            )
    questions = {problem.id: " ".join(problem.question.split())[:80] for problem in problems}
    for pair in found.pairs[:SHOWN_PAIRS]:
        lines.append(f"  {pair.similarity:.2f} {pair.likeness:<8}{pair.split} {pair.id}: {questions[pair.id]}")
        lines.append(f"  {'':13}{pair.other_split} {pair.other}: {questions[pair.other]}")
    if len(found.pairs) > SHOWN_PAIRS:
        lines.append(f"  and {len(found.pairs) - SHOWN_PAIRS} more, all of them with --json")
    return lines


def _text_lines(as_text: "list[Problem]", n: int) -> list[str]:
    if not as_text:
        return []
    shown = ", ".join(f"{problem.id} ({problem.answer[:30]!r})" for problem in as_text[:SHOWN_PAIRS])
    more = f" and {len(as_text) - SHOWN_PAIRS} more" if len(as_text) > SHOWN_PAIRS else ""
    return [f"gold answers compared as text: {len(as_text)} of {n} ({len(as_text) / n:.1%}): {shown}{more}"]


def _control_line(control: "Control") -> str:
    failed = f"; not so: {', '.join(control.failed[:SHOWN_PAIRS])}" if control.failed else ""
    return f"control: {control.name}: {control.n - len(control.failed)} of {control.n} {control.expected.value}{failed}"


def _settings(**values: object) -> "TaskSettings":
    from pydantic import ValidationError

    from trimtab.errors import ConfigError
    from trimtab.tasks.settings import TaskSettings

    try:
        return TaskSettings.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(issue["msg"].removeprefix("Value error, ") for issue in error.errors())) from error


def _template_of(model: str, settings: "TaskSettings") -> "Callable[[str], str]":
    """The prompt as text of a model: its tokenizer is opened, not its weights."""
    from trimtab.model import open_tokenizer
    from trimtab.tasks.loading import task_prompt
    from trimtab.tasks.prompts import render_prompt

    tokenizer = open_tokenizer(model)
    return lambda question: str(tokenizer.decode(list(render_prompt(tokenizer, question, task_prompt(settings)))))


def _shown(problem: "Problem", text: str) -> dict[str, object]:
    names = ("id", "answer", "split", "domain", "difficulty", "kind")
    return {"prompt": text, **{name: getattr(problem, name) for name in names}}


def _from(benchmark: "Benchmark", split: str) -> str:
    places = [f"{part.hub_id} {part.split}" for part in benchmark.parts if split in part.to]
    shared = any(len(part.to) == 3 for part in benchmark.parts)
    return ", ".join(places) + (" (by hash)" if shared else "")


def _described(benchmark: "Benchmark") -> dict[str, object]:
    from dataclasses import asdict

    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "answer": benchmark.kind,
        "parts": [
            {"hub_id": p.hub_id, "configs": p.configs, "split": p.split, "revision": p.revision, "to": p.to}
            for p in benchmark.parts
        ],
        "prompt": benchmark.prompt.model_dump(),
        "decoding": asdict(benchmark.decoding),
        "domains": benchmark.domains,
        "leaks": benchmark.leaks,
    }
