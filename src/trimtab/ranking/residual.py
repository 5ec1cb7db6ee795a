"""The difference of class means of the residual stream, streamed from a recording."""

from typing import TYPE_CHECKING

import numpy as np

from trimtab.directions import Directions
from trimtab.errors import NotEnoughDataError
from trimtab.moments import TokenScope
from trimtab.neurons import ModelIdentity
from trimtab.ranking.streamed import matched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimtab.recording import Recording
    from trimtab.tasks.contrast import ContrastRow

MEAN_DIFFERENCE = "mean-difference"


def mean_difference_directions(
    recording: "Recording", rows: "Sequence[ContrastRow]", scope: TokenScope, model: ModelIdentity, facts: dict[str, object]
) -> Directions:
    """``mean over correct traces of m - mean over incorrect traces of m``, m the mean over a trace's tokens, after every layer.

    Source: contrastive activation addition, Rimsky et al., arXiv 2312.06681, which takes the token of an answer's letter where
    this takes all tokens of the scope. Read part by part and summed up in float64; the memory is that of one part.

    Args:
        recording: of the site ``residual``, every trace of ``rows`` in it.
        rows: the contrast.
        scope: one of those that were recorded.
        model: that was recorded.
        facts: go into the directions, beside the counts.

    Raises:
        NotEnoughDataError: a class has no trace.
    """
    total = np.zeros((2, model.n_layers, model.d_model))
    count = np.zeros(2, np.int64)
    for chosen, moments in matched(recording.stream(scope, ("sum",)), rows):
        means = moments.mean().astype(np.float64)
        correct = np.array([row.correct for row in chosen], bool)
        for side in (0, 1):
            total[side] += means[correct == bool(side)].sum(0)
            count[side] += int((correct == bool(side)).sum())
    if not count.all():
        raise NotEnoughDataError(
            f"a direction needs correct and incorrect traces, and the contrast has {count[1]} and {count[0]}; sample more traces"
        )
    incorrect_mean, correct_mean = total / count[:, None, None]
    counts = {"n_correct": int(count[1]), "n_incorrect": int(count[0])}
    vector = (correct_mean - incorrect_mean).astype(np.float32)
    return Directions(np.arange(model.n_layers), vector, MEAN_DIFFERENCE, model, {**facts, **counts})
