"""``stability``: would other problems, fewer problems, or labels without a meaning have found the same neurons?"""

from collections.abc import Sequence

from trimtab.experiments.redrawn import Redrawn
from trimtab.experiments.section import Section
from trimtab.experiments.stability_length import length_control
from trimtab.experiments.stability_null import null
from trimtab.experiments.stability_overlap import bootstrap, halves
from trimtab.experiments.stability_sizes import sizes
from trimtab.experiments.workbench import Workbench
from trimtab.results import Result
from trimtab.traces import Split

ALONGSIDE = ("adaras", "paired-t", "auroc")
"""Criteria that are looked at beside the chosen one."""
FEWEST = 4
"""Problems in the contrast: two halves of two each."""


def stability(bench: Workbench) -> Result:
    """Draw the contrast anew in every way that tells a finding from an accident.

    Everything but the gains comes from the stored activations. Per-trace means are held in memory up to a bound; a contrast that
    is larger is thinned by whole problems, and the findings say so.
    """
    problems = {row.problem_id for row in bench.contrast}
    redrawn = Redrawn.load(bench, (bench.criterion, *ALONGSIDE)) if len(problems) >= FEWEST else None
    if redrawn is None or redrawn.n_problems < FEWEST:
        fit = "" if redrawn is None else f", of which {redrawn.n_problems} fit into experiment.stability.memory_gb"
        return _result([Section((), (), (f"The contrast has {len(problems)} problems{fit}; {FEWEST} or more are needed.",))])
    base = bench.answers(Split.TEST, None, label="unsteered")
    sections = [halves(redrawn), bootstrap(redrawn), sizes(redrawn, base), length_control(redrawn, base), null(redrawn)]
    if redrawn.left_out:
        thinned = f"{redrawn.left_out} of {len(problems)} contrast problems, drawn at random, did not fit in memory: left out."
        sections.insert(0, Section((), (), (thinned,)))
    return _result(sections)


def _result(sections: Sequence[Section]) -> Result:
    return Result(
        name="stability",
        title="Stability of the set",
        question="Would other problems have found the same neurons, and how many of them are a matter of chance?",
        findings=tuple(finding for section in sections for finding in section.findings),
        split=Split.TEST,
        tables=tuple(table for section in sections for table in section.tables),
        figures=tuple(figure for section in sections for figure in section.figures),
    )
