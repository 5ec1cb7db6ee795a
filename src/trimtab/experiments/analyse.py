"""``analyse``: what the neurons are, and what steering does inside the model. On train and validation; the test split stays
closed."""

from collections.abc import Mapping

from trimtab.analysis import Analysis, PromptLabels
from trimtab.analysis import analyse as analyse_steering
from trimtab.errors import InputError
from trimtab.experiments.analysis_effect import drift_figures, effect_table, magnitude_table, perplexity_finding, probe_figure
from trimtab.experiments.analysis_neurons import (
    layer_figure,
    overlap_figure,
    ratio_figure,
    sets_figure,
    token_table,
    vocabulary_table,
)
from trimtab.experiments.chains import greedy_chains
from trimtab.experiments.workbench import Workbench
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, labelled
from trimtab.results import Figure, Result, Table
from trimtab.traces import Split

CHAINS = 200
"""At most so many tune problems are answered for what steering does."""


def analyse(bench: Workbench) -> Result:
    """Everything that is known about the found neurons and their steering."""
    analysis = _analysis(bench)
    figures: list[Figure] = [
        layer_figure(analysis.layers),
        ratio_figure(analysis.ratios),
        overlap_figure(analysis.top_overlap),
    ]
    if analysis.overlaps:
        figures.append(sets_figure(analysis.overlaps, bench.k))
    tables: list[Table] = [vocabulary_table(analysis.vocabulary), token_table(analysis.top_tokens)]
    if analysis.probes is not None:
        figures.append(probe_figure(analysis.probes))
    figures += drift_figures(analysis.drift, analysis.split)
    tables.append(effect_table(analysis))
    if analysis.magnitudes is not None:
        tables.append(magnitude_table(analysis.magnitudes))
    return Result(
        name="analyse",
        title="Analysis of the neurons",
        question="Where do these neurons sit, what do they write, when are they active, and what does steering them change?",
        findings=(*(figure.reading for figure in figures), perplexity_finding(analysis.perplexity)),
        split=analysis.split,
        tables=tuple(tables),
        figures=tuple(figures),
    )


def _analysis(bench: Workbench) -> Analysis:
    if bench.class_moments.correct_magnitude is None:
        raise InputError(
            "analyse reads magnitudes, which this run did not record; add 'magnitude' to recording.moments and run it again"
        )
    problems = bench.split(Split.VALIDATION)[:CHAINS]
    contrasted = {row.trace_id for row in bench.contrast}
    labels = {split: _labels(bench, split) for split in bench.prompts}
    return analyse_steering(
        bench.model,
        bench.steering,
        bench.class_moments,
        labelled(bench.recording.stream(bench.scope), bench.contrast),
        [trace for trace in bench.traces if trace.id in contrasted],
        greedy_chains(bench, problems),
        split=Split.VALIDATION,
        steered=greedy_chains(bench, problems, bench.steering, "auto"),
        train=labels.get(Split.TRAIN),
        validation=labels.get(Split.VALIDATION),
        sets=_sets(bench),
        progress=bench.progress,
    )


def _labels(bench: Workbench, split: Split) -> PromptLabels:
    order = [problem.id for problem in bench.split(split)]
    return PromptLabels(bench.prompts[split].means("last-prompt", order), bench.failed[split])


def _sets(bench: Workbench) -> Mapping[str, Neurons]:
    """What every criterion selects at the same K, where it can."""
    sets = {}
    for name in CRITERIA:
        ranking = bench.ranking(name)
        if ranking is not None and len(ranking.order) >= bench.k:
            sets[name] = bench.neurons(name, bench.k, seed=bench.settings.seed)
    return sets
