"""Directions of a study: recorded on the contrast's traces, and the layer and strength that are best on the validation split."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from trimtab.directions import Directions
from trimtab.display import as_html
from trimtab.errors import ConfigError
from trimtab.ranking.residual import mean_difference_directions
from trimtab.recording import Recording, RecordingSettings, record_job
from trimtab.steering import Steering
from trimtab.store import AnyPath, Entry, load_directions, read_table, save_directions, write_table
from trimtab.study import find, gather, tuning
from trimtab.traces import Split

if TYPE_CHECKING:
    import pandas

    from trimtab.study.study import Study

VERSIONS: Mapping[str, int] = {"residual": 1, "directions": 1, "tune-direction": 1}
"""Of each verb, as :data:`trimtab.study.gather.VERSIONS`."""
POINTS = "points.parquet"
MOST_LAYERS = 8


@dataclass(frozen=True, slots=True)
class DirectionPoint:
    """One point of the grid of a direction; accuracies as of :class:`trimtab.evaluation.rows.TunePoint`."""

    layer: int
    strength: float
    n: int
    unsteered: float
    always: float
    gated: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DirectionTuning:
    """A grid of layers and strengths on the validation split, and the steering of its best point.

    Args:
        points: every point of the grid.
        best: the point with the highest gated accuracy; on a tie the weakest strength, then the first layer.
        steering: that point's, behind the gate.
        key: ``VERB/KEY`` in the cache.
    """

    points: tuple[DirectionPoint, ...]
    best: DirectionPoint
    steering: Steering
    key: str

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a point of the grid: accuracies unsteered, always and gated, as fractions."""
        import pandas

        return pandas.DataFrame([asdict(point) for point in self.points])

    def __repr__(self) -> str:
        p = self.best
        return (
            f"best of {len(self.points)} points: after layer {p.layer}, strength {p.strength:g}; {p.unsteered:.1%} unsteered to "
            f"{p.gated:.1%} gated on {p.n} validation problems"
        )

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.to_pandas())


def residual_recording(study: "Study") -> Recording:
    """The residual stream of the contrast's traces, summed up over their tokens in a forward of its own.

    It lies apart from the moments of the neurons, whose keys and results know nothing of it.
    """
    entry, wanted = _residual_entry(study)
    settings = RecordingSettings(
        scopes=(study.settings.ranking.scope,), moments=("sum",), batch_tokens=study.settings.recording.batch_tokens
    )
    with entry.claim() as missing:
        if missing:
            chosen = [trace for trace in study.traces().traces if trace.id in wanted]
            job = record_job(study.model, chosen, settings, entry.folder, label="record residual stream", site="residual")
            study.run([job])
            job.finish()
    study.note_key("residual", entry)
    return Recording(entry.folder)


def _residual_entry(study: "Study") -> tuple[Entry, set[str]]:
    rows, _, contrast_entry = gather.contrast(study)
    facts = {
        "contrast": contrast_entry.name,
        "scope": study.settings.ranking.scope,
        "batch_tokens": study.settings.recording.batch_tokens,
    }
    return study.entry("residual", {**facts, **study.forward_facts()}), {row.trace_id for row in rows}


def directions(study: "Study") -> Directions:
    """The difference of class means after every layer."""
    residual, _ = _residual_entry(study)
    entry = study.entry("directions", {"residual": residual.name, **study.forward_facts()})

    def work(folder: AnyPath) -> None:
        rows, counts, _ = gather.contrast(study)
        scope = study.settings.ranking.scope
        facts = {"contrast": counts, "scope": scope}
        found = mean_difference_directions(residual_recording(study), rows, scope, study.model.identity, facts)
        save_directions(found, folder)

    return study.compute("directions", entry, work, load_directions)


def tune_direction(study: "Study") -> DirectionTuning:
    """Every layer and strength of the settings on the validation split; the point with the highest gated accuracy.

    Raises:
        ConfigError: no validation problem, or a layer that the model has not.
    """
    settings = study.settings
    found, gate = directions(study), find.fit_gate(study)
    layers = settings.direction.layers or spread(study.model.n_layers, MOST_LAYERS)
    if absent := sorted(set(layers) - set(found.layer.tolist())):
        raise ConfigError(f"direction.layers names {absent}, and this model has layers 0 to {study.model.n_layers - 1}")
    chosen = study.problems().split(Split.VALIDATION)[: settings.tune.problems]
    if not chosen:
        raise ConfigError("a direction is tuned on problems of the validation split, and there are none; ask for validation=N")
    points = list(product(layers, settings.direction.strengths))
    steerings = {
        f"layer-{layer}-{strength:g}": found.at(layer).steering(strength, gate, settings.tune.scope) for layer, strength in points
    }
    facts = {
        "points": {name: steering.digest for name, steering in steerings.items()},
        "sampling": settings.sampling.greedy().model_dump(mode="json"),
        "prompt": settings.prompt.model_dump(mode="json"),
        "problems": gather.problems_digest(chosen),
        **study.grader_facts,
    }
    entry = study.entry("tune-direction", {**facts, **study.engine_facts()})

    def work(folder: AnyPath) -> None:
        p_fail = find.p_fail(study, gate, Split.VALIDATION) if gate.reads else {}
        accuracies = tuning.grid_accuracies(study, steerings, gate, p_fail, chosen, "tune-direction")
        rows = [DirectionPoint(*point, len(chosen), *each) for point, each in zip(points, accuracies, strict=True)]
        write_table(folder / POINTS, rows, DirectionPoint)

    table = tuple(study.compute("tune-direction", entry, work, lambda folder: read_table(folder / POINTS, DirectionPoint)))
    best = min(table, key=lambda p: (-p.gated, abs(p.strength), p.layer))
    tuned = {"tune": {"n": best.n, "unsteered": best.unsteered, "always": best.always, "gated": best.gated}}
    told = {**tuned, "task": settings.task.source, "seed": settings.sampling.seed}
    steering = steerings[f"layer-{best.layer}-{best.strength:g}"]
    return DirectionTuning(table, best, replace(steering, facts={**steering.facts, **told}), entry.name)


def spread(n_layers: int, most: int) -> tuple[int, ...]:
    """At most this many layers, evenly spaced, the last among them.

    Example:
        >>> spread(4, 8), spread(24, 8)
        ((0, 1, 2, 3), (2, 5, 8, 11, 14, 17, 20, 23))
    """
    n = min(n_layers, most)
    return tuple(int(edge) - 1 for edge in np.linspace(0, n_layers, n + 1)[1:])
