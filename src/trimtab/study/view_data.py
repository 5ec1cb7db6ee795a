"""From an evaluation to its view: the pieces of each response's text, the probabilities of its tokens, and the neurons."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from trimtab.analysis.token_record import Hit
from trimtab.analysis.vocabulary import TokenPush, project_directions, project_vocabulary, token_text
from trimtab.errors import ConfigError, ModelError, NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import ALWAYS, GATED, UNSTEERED
from trimtab.evaluation.verdict import judge, matched
from trimtab.moments import ALL_MOMENTS, Moments
from trimtab.ranking import CRITERIA, NEEDS, ClassMoments
from trimtab.ranking.criteria import SEEDED, Criterion
from trimtab.report.view_page import Histogram, ResponseTokens, View, ViewHit, ViewNeuron
from trimtab.steering import Steering
from trimtab.store import AnyPath, load_steering, read_json, read_table, write_json
from trimtab.study import find, gather
from trimtab.study.tokens import PairTokens, response_name, same_as
from trimtab.study.values import Evaluation, Tuning
from trimtab.traces import Trace

if TYPE_CHECKING:
    from trimtab.study.study import Study

BINS, PROMOTED, SHOWN_HITS = 28, 8, 8
BEFORE, AFTER = 6, 4
"""Tokens of context around one on which a neuron is active."""


def build_view(study: "Study", evaluation: Evaluation, tuning: Tuning | None) -> View:
    """All that the view of an evaluation shows.

    Args:
        study: that made it.
        evaluation: whose pairs are shown.
        tuning: where the steering was chosen; None where a finished artifact is judged, whose traces are not in this study.
    """
    gate = evaluation.steering.gate
    tokens: dict[tuple[str, str, int, int], ResponseTokens] = {}
    text: dict[int, str] = {}
    hits: list[list[Hit]] = []
    notes = ["Only tokens of the judged condition have probabilities and contributions."]
    pair = evaluation.tokens
    if pair is None:
        notes = ["The tokens of these responses were not kept, so there are no probabilities; run the evaluation again for them."]
    else:
        tokens, text, hits = _tokens(study.model.tokenizer, evaluation, pair)
        if pair.record.why_not:
            notes.append(f"Contributions are not told for this model: {pair.record.why_not}.")
        elif pair.record.why_no_dose:
            notes.append(f"There is no dose to colour by: {pair.record.why_no_dose}.")
    return View(
        model=study.model.identity.name,
        task=study.settings.task.source,
        split=evaluation.split,
        word=evaluation.verdict.word,
        sentence=evaluation.verdict.sentence,
        condition=evaluation.condition,
        outcomes=evaluation.outcomes,
        problems=evaluation.problems,
        strength=evaluation.steering.strength,
        threshold=gate.cutoff if gate.reads else None,
        tokens=tokens,
        token_text=text,
        neurons=_neurons(study, evaluation.steering, tuning, _contexts(pair, tokens, hits)),
        notes=tuple(notes),
        contributions=pair is not None and not pair.record.why_not,
        doses=pair is not None and not (pair.record.why_not or pair.record.why_no_dose),
        running_threshold=None if pair is None or pair.probe is None else pair.probe.cutoff,
    )


def check_evaluated(root: AnyPath) -> None:
    """Raise ConfigError unless a run directory holds a finished evaluation, which can be read and need not be made."""
    if not _finished(root, "evaluate"):
        raise ConfigError(
            f"{root} holds no finished evaluation, so there are no pairs to look at; repeat the command that began it, which "
            "continues where it stopped",
            code="not-evaluated",
        )
    if not _finished(root, "tune") and not (root / "steering").exists():
        raise ConfigError(
            f"{root} was written by an older `trimtab evaluate --out`, which did not keep the artifact that it judged; open its "
            "view.html, or evaluate again into another folder",
            code="not-evaluated",
        )


def evaluation_of_run(study: "Study") -> tuple[Evaluation, Tuning | None]:
    """The evaluation of a run directory: of what its grid chose, or of the artifact that ``trimtab evaluate --out`` judged."""
    root = study.cache.root
    if _finished(root, "tune"):
        return study.evaluate(), study.tuned()
    return study.evaluate(load_steering(root / "steering")), None


def _finished(root: AnyPath, verb: str) -> bool:
    return any(True for _ in (root / verb).glob("*/key.json"))


def build_bare_view(study: "Study") -> View:
    """The view of a run whose model cannot be opened: its pairs, scores and verdict, from the files that it left.

    Raises:
        StoreError: the run left no outcomes or no artifact.
    """
    rows = read_table(study.cache.root / "outcomes.parquet", Outcome)
    steering = load_steering(study.cache.root / "steering")
    outcomes: dict[str, list[Outcome]] = {}
    for row in rows:
        outcomes.setdefault(row.condition, []).append(row)
    settings, gate = study.settings.evaluation, steering.gate
    condition = ALWAYS if gate.kind == "always" or GATED not in outcomes else GATED
    verdict = judge(outcomes[UNSTEERED], outcomes[condition], settings.alpha)
    return View(
        model=steering.model.name,
        task=study.settings.task.source,
        split=settings.split,
        word=verdict.word,
        sentence=verdict.sentence,
        condition=condition,
        outcomes=outcomes,
        problems={problem.id: problem for problem in study.problems().split(settings.split)},
        strength=steering.strength,
        threshold=gate.cutoff if gate.reads else None,
        notes=("The model could not be opened, so there are no probabilities, contributions or neurons.",),
    )


def _tokens(
    tokenizer: PreTrainedTokenizerBase, evaluation: Evaluation, pair: PairTokens
) -> tuple[dict[tuple[str, str, int, int], ResponseTokens], dict[int, str], list[list[Hit]]]:
    """Tokens of every recorded response, the text of each token that is met, and where the neurons are most active."""
    rows, hits = pair.record.read()
    found: dict[tuple[str, str, int, int], ResponseTokens] = {}
    base, judged = evaluation.outcomes[UNSTEERED], evaluation.outcomes[evaluation.condition]
    ids: set[int] = set()
    for before, after in matched(base, judged):
        for outcome in (before, after):
            name = response_name(outcome)
            if name not in pair.responses:
                continue
            recorded = rows[same_as(name, outcome, before, pair.responses)]
            response = pair.responses[name]
            pieces = token_pieces(tokenizer, response.trace.response_ids, outcome.response)
            key = (outcome.condition, outcome.problem_id, outcome.seed, outcome.sample)
            found[key] = ResponseTokens(response.trace.response_ids, pieces, recorded, response.strength)
            ids.update(response.trace.response_ids, recorded.alternative.ravel().tolist())
    return found, {i: token_text(tokenizer, i) for i in sorted(ids)}, hits


def token_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> tuple[str, ...]:
    """The part of a response's text that each token adds; together they are the text, whatever the tokenizer does between tokens.

    A token that adds nothing, such as the end token or one byte of a longer character, has an empty piece.

    Example:
        >>> from trimtab.testbed.tokenizer import build_tokenizer  # doctest: +SKIP
        >>> token_pieces(tokenizer, tokenizer.encode("so a 5"), "so a 5")  # doctest: +SKIP
        ('so', ' a', ' 5')
    """
    ends = _ends_by_offsets(tokenizer, ids, text) or _ends_by_decoding(tokenizer, ids, text)
    starts = [0, *ends][: len(ends)]
    return tuple(text[start:end] for start, end in zip(starts, ends, strict=True))


def _ends_by_offsets(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[int] | None:
    """Where each token ends, where the text gives these very tokens back; None where it does not."""
    if not tokenizer.is_fast:
        return None
    special = set(tokenizer.all_special_ids)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if encoded["input_ids"] != [i for i in ids if i not in special]:
        return None
    offsets = iter(encoded["offset_mapping"])
    ends, end = [], 0
    for i in ids:
        if i not in special:
            end = max(end, next(offsets)[1])
        ends.append(end)
    return _closed(ends, ids, special, len(text))


def _ends_by_decoding(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[int]:
    """The same from the texts of ever longer beginnings; a token that leaves a character open adds nothing."""
    special = set(tokenizer.all_special_ids)
    ends: list[int] = []
    start, end, base = 0, 0, 0
    for i in range(len(ids)):
        tail = str(tokenizer.decode(list(ids[start : i + 1]), skip_special_tokens=True))
        if not tail.endswith("\ufffd"):
            end = max(end, min(base + len(tail), len(text)))
            if i + 1 - start > 16 and text[base : base + len(tail)] == tail:
                # what stands before is settled; one token of context stays, which may decide about a space
                start = i
                base = end - len(str(tokenizer.decode([ids[i]], skip_special_tokens=True)))
        ends.append(end)
    return _closed(ends, ids, special, len(text))


def _closed(ends: list[int], ids: Sequence[int], special: set[int], length: int) -> list[int]:
    """The last token that is no special one takes what is left of the text."""
    last = max((i for i, token in enumerate(ids) if token not in special), default=len(ids) - 1)
    return [*ends[:last], *[length] * (len(ends) - last)] if ends else []


def _contexts(
    pair: PairTokens | None, tokens: Mapping[tuple[str, str, int, int], ResponseTokens], hits: Iterable[Sequence[Hit]]
) -> list[tuple[ViewHit, ...]]:
    """The tokens on which each neuron is most active, within their text."""
    if pair is None:
        return []
    traces: dict[str, Trace] = {name: response.trace for name, response in pair.responses.items()}
    pieces = {}
    for (condition, problem, seed, sample), found in tokens.items():
        pieces[f"{condition}/{seed}/{problem}/{sample}"] = found.pieces
    return [
        tuple(
            ViewHit(
                traces[hit.response].problem_id,
                "".join(pieces[hit.response][max(0, hit.token - BEFORE) : hit.token]),
                pieces[hit.response][hit.token],
                "".join(pieces[hit.response][hit.token + 1 : hit.token + 1 + AFTER]),
                round(hit.activation, 4),
            )
            for hit in found[:SHOWN_HITS]
        )
        for found in hits
    ]


def _neurons(
    study: "Study", steering: Steering, tuning: Tuning | None, contexts: Sequence[tuple[ViewHit, ...]]
) -> tuple[ViewNeuron, ...]:
    return (*_own_neurons(study, steering, tuning, contexts), *_directions(study, steering))


def _directions(study: "Study", steering: Steering) -> list[ViewNeuron]:
    """The directions as pages of their own, after the neurons, in the order in which contributions name them."""
    if not steering.has_directions:
        return []
    pushes = _pushes(study, steering, directions=True) or [((), ())] * len(steering.direction)
    return [
        ViewNeuron(
            f"direction after layer {layer}",
            layer,
            None,
            0.0,
            0.0,
            norm=float(np.linalg.norm(vector)),
            promoted=promoted,
            demoted=demoted,
        )
        for layer, vector, (promoted, demoted) in zip(steering.direction_layer.tolist(), steering.direction, pushes, strict=True)
    ]


def _own_neurons(
    study: "Study", steering: Steering, tuning: Tuning | None, contexts: Sequence[tuple[ViewHit, ...]]
) -> list[ViewNeuron]:
    if not steering.has_neurons:
        return []
    ranks = _ranks(study, steering) if tuning else [{} for _ in range(len(steering.layer))]
    means = _trace_means(study, steering) if tuning else None
    pushes = _pushes(study, steering)
    found = []
    for n in range(len(steering.layer)):
        layer, index = int(steering.layer[n]), int(steering.index[n])
        correct, incorrect = (None, None) if means is None else (means[0][:, n], means[1][:, n])
        promoted, demoted = pushes[n] if pushes else ((), ())
        found.append(
            ViewNeuron(
                " ".join(steering.model.address(layer, index).split()),
                layer,
                index,
                float(steering.gain[n]),
                float(steering.shift[n]),
                correct_mean=None if correct is None else float(correct.mean()),
                incorrect_mean=None if incorrect is None else float(incorrect.mean()),
                ranks=dict(sorted(ranks[n].items(), key=lambda rank: rank[0] != steering.facts.get("criterion"))),
                ranked=steering.model.n_neurons,
                histogram=None if correct is None or incorrect is None else _histogram(correct, incorrect),
                promoted=promoted,
                demoted=demoted,
                hits=contexts[n] if contexts else (),
            )
        )
    return found


def _ranks(study: "Study", steering: Steering) -> list[dict[str, int | None]]:
    """Every steered neuron's place, from 1, in the ranking of each criterion that the recording serves; None for not eligible.

    Criteria that draw have no place of their own, and ``wanda`` and ``cett`` read the weights of every layer: both are left out.
    """
    recorded = set(study.settings.recording.moments)
    criteria = [
        name
        for name in CRITERIA
        if name not in SEEDED and name not in find.READ_WEIGHTS and not NEEDS[name] & set(ALL_MOMENTS) - recorded
    ]
    facts = {
        "contrast": gather.contrast(study)[2].name,
        "moments": sorted(recorded),
        "scope": study.settings.ranking.scope,
        "criteria": criteria,
        "neurons": [steering.layer.tolist(), steering.index.tolist()],
    }
    entry = study.entry("places", {**facts, **study.forward_facts()})

    def work(folder: AnyPath) -> None:
        statistics = frozenset().union(*(NEEDS[name] for name in criteria))
        moments = find.moments(study, study.contrast(), statistics, criteria=criteria)
        flat = steering.layer * steering.model.d_ff + steering.index
        write_json(folder / "places.json", {name: _places(CRITERIA[name], moments, flat) for name in criteria})

    places: dict[str, list[int | None]] = study.compute("places", entry, work, lambda folder: read_json(folder / "places.json"))  # type: ignore[assignment]
    return [{name: places[name][n] for name in criteria} for n in range(len(steering.layer))]


def _places(criterion: Criterion, moments: ClassMoments, flat: NDArray[np.int64]) -> list[int | None]:
    try:
        order = criterion(moments).order
    except NotEnoughDataError:
        return [None] * len(flat)
    usable = order[moments.comparable.ravel()[order]]
    place = {int(address): i for i, address in enumerate(usable.tolist(), 1)}
    return [place.get(address) for address in flat.tolist()]


def _trace_means(study: "Study", steering: Steering) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean activation of the steered neurons over each trace of the contrast, ``[trace, neuron]``, correct and incorrect."""
    sides = {row.trace_id: row.correct for row in study.contrast()}
    found: dict[bool, list[NDArray[np.float32]]] = {True: [], False: []}
    for ids, moments in study.recording().stream(study.settings.ranking.scope, ("sum",)):
        means = _means(moments, steering)
        for name, row in zip(ids, means, strict=True):
            if name in sides:
                found[sides[name]].append(row)
    return np.stack(found[True]), np.stack(found[False])


def _means(moments: Moments, steering: Steering) -> NDArray[np.float32]:
    return moments.mean_of_all_tokens()[:, steering.layer, steering.index]


def _histogram(correct: NDArray[np.float32], incorrect: NDArray[np.float32]) -> Histogram:
    both = np.concatenate([correct, incorrect])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    counts = (tuple(np.histogram(side, edges)[0].tolist()) for side in (correct, incorrect))
    return Histogram(float(f"{low:.4g}"), float(f"{edges[-1]:.4g}"), *counts)


_Pushes = list[tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]]


def _pushes(study: "Study", steering: Steering, directions: bool = False) -> _Pushes:
    """Tokens that each neuron, or each direction, promotes and demotes; empty where there is no vocabulary projection."""
    try:
        if directions:
            found = project_directions(study.model, steering.direction, top=PROMOTED)
        else:
            neurons = project_vocabulary(study.model, steering.layer, steering.index, top=PROMOTED).neurons
            found = [(neuron.promoted, neuron.demoted) for neuron in neurons]
    except ModelError as error:
        study.note(f"the view has no vocabulary projection: {error}")
        return []
    return [(_pairs(promoted), _pairs(demoted)) for promoted, demoted in found]


def _pairs(side: Sequence[TokenPush]) -> tuple[tuple[str, float], ...]:
    return tuple((push.token, round(push.z, 2)) for push in side)
