"""The part of ``ablate`` that trains: gains and shifts learned by gradient, of the chosen neurons, of others, of a layer."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import Part, accuracy, compare_rows, describe, gain_frame
from trimtab.experiments.search import Search
from trimtab.ranking import random_like
from trimtab.steering import Steering
from trimtab.traces import Split


def trained_part(search: Search, base: Sequence[Outcome]) -> Part:
    """What trained values reach where the closed form stands, behind the same gate.

    The learning rate is chosen on the validation split for the chosen neurons; random neurons and whole layers are trained at
    that rate, and the layer is chosen on the validation split.
    """
    full = search.steering
    if full.has_directions:
        return Part(sentences=("Gains and shifts are trained on neurons, and the chosen steering adds a direction.",))
    trained = search.trained(full)
    rate = trained.facts["trained"]["learning_rate"]  # type: ignore[index]
    seeds = range(search.settings.seed, search.settings.seed + search.settings.random_sets)
    drawn = [search.trained(random_like(full, seed), rate) for seed in seeds]
    layer, whole, tried = _best_layer(search, rate)
    conditions: dict[str, list[Outcome] | list[list[Outcome]]] = {
        "closed form": _answers(search, full),
        "trained": _answers(search, trained),
        "trained, random neurons": [_answers(search, each) for each in drawn],
        f"trained, all {len(whole)} neurons of layer {layer}": _answers(search, whole),
    }
    rows = compare_rows(base, conditions, search.clusters)
    before, after = (trained.facts["trained"][name] for name in ("loss_before", "loss_after"))  # type: ignore[index]
    frame = gain_frame(
        "trained",
        f"Values of the chosen {len(full)} neurons: closed form and trained",
        base,
        rows,
        note=f"Learning rate {rate:g}, chosen on the validation split for the chosen neurons; there the layer, too, of {tried}.",
        reading="What the same neurons can do where their gains and shifts are learned from the same correct responses.",
        chosen="closed form",
    )
    sentence = (
        f"Gains and shifts learned by gradient on the chosen neurons: {describe(rows[1])}, against {describe(rows[0])} in closed "
        f"form; on all neurons of layer {layer} {describe(rows[3])}; on random neurons {100 * rows[2].gain:+.1f} points in the "
        f"mean. What training lowers is the loss on correct responses, from {before:.4f} to {after:.4f} nats a token."
    )
    return Part((frame,), (sentence,))


def _answers(search: Search, steering: Steering) -> list[Outcome]:
    return search.answers(Split.TEST, steering, "auto", label="trained")


def _best_layer(search: Search, rate: float) -> tuple[int, Steering, int]:
    """All neurons of each layer, trained at one rate: the layer with the best accuracy on the validation split, of how many.

    Ties go to the first.
    """
    model = search.model.identity
    problems = search.split(Split.VALIDATION)[: search.tune.problems]
    candidates: dict[int, Steering] = {}
    having = [layer for layer in range(model.n_layers) if model.width(layer)]
    places = np.linspace(0, len(having) - 1, search.settings.ablate.trained_layers)
    for layer in (having[i] for i in np.unique(places.round().astype(int))):
        index = np.arange(model.width(layer))
        zeros = np.zeros(len(index), np.float32)
        facts: dict[str, object] = {"criterion": f"all neurons of layer {layer}"}
        whole = replace(
            search.steering, layer=np.full_like(index, layer), index=index, gain=zeros, shift=zeros, facts=facts, strength=1.0
        )
        candidates[layer] = search.trained(whole, rate)
    found = {
        layer: accuracy(search.answers(Split.VALIDATION, each, "on", problems, "trained layer"))
        for layer, each in candidates.items()
    }
    best = max(found, key=found.__getitem__)
    return best, candidates[best], len(candidates)
