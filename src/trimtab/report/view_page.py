"""A run as one HTML page to look through: every pair of responses with its tokens, and the neurons. It loads nothing.

What the page lists lies in it as JSON: one row a pair, and the flags of every condition. Texts and tokens lie in chunks of gzip
in base64, opened when they are looked at, so a page of many megabytes shows itself at once. A chunk is a length, that many
bytes of JSON, and the arrays that the JSON points into, little-endian.
"""

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from trimtab.analysis.token_record import TokenRows
from trimtab.evaluation.controls import reading
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import UNSTEERED
from trimtab.evaluation.summary import DISAGREEMENT
from trimtab.evaluation.verdict import matched
from trimtab.report.html import environment
from trimtab.traces import Problem

SIZE_LIMIT = 15_000_000
"""Bytes of a page. Above it the page holds all flips and as many other pairs as fit."""
FORMAT = 1
SCRIPTS = (
    "text.js",
    "codec.js",
    "align.js",
    "state.js",
    "list.js",
    "tokens.js",
    "pair.js",
    "details.js",
    "neurons.js",
    "main.js",
)
_CHUNK = 40
_SNIPPET = 150
_NATS = 1000.0


@dataclass(frozen=True, slots=True)
class ResponseTokens:
    """The tokens of one response.

    Args:
        ids: that were generated, end token included.
        pieces: the text that each adds; together they are the response.
        rows: what the model said of them; for a judged response on which nothing acted the unsteered one's.
        strength: times g, that acted on the response.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    rows: TokenRows
    strength: float


@dataclass(frozen=True, slots=True)
class ViewHit:
    """A token on which a neuron is active, with the text around it."""

    problem: str
    before: str
    token: str
    after: str
    activation: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts in equal bins from ``low`` to ``high``: mean activation of one neuron over a trace's tokens, of each class."""

    low: float
    high: float
    correct: tuple[int, ...]
    incorrect: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ViewNeuron:
    """One place of the steering: a neuron, or a direction.

    Args:
        index: None for a direction, which is added after its layer.
        ranks: its place in the ranking of each criterion, from 1; None where it is not among the neurons that are kept.
        promoted, demoted: tokens of the vocabulary projection with their z.
        norm: of a direction; None for a neuron.
    """

    address: str
    layer: int
    index: int | None
    gain: float
    shift: float
    correct_mean: float | None = None
    incorrect_mean: float | None = None
    ranks: Mapping[str, int | None] = field(default_factory=dict)
    ranked: int = 0
    histogram: Histogram | None = None
    promoted: tuple[tuple[str, float], ...] = ()
    demoted: tuple[tuple[str, float], ...] = ()
    hits: tuple[ViewHit, ...] = ()
    norm: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """All that the page shows.

    Args:
        model, task, split: what was judged.
        word, sentence: the verdict.
        condition: the one that is judged.
        outcomes: of every condition.
        problems: by id.
        strength: of the steering.
        threshold: of the gate; None where it reads nothing.
        tokens: of responses by ``(condition, problem, seed, sample)``; empty where none were recorded.
        token_text: the text of a token by its id, for the alternatives.
        neurons: that are steered, in the steering's order; directions after them.
        notes: what a reader has to know, such as why there are no contributions.
        contributions: whether the tokens have contributions.
        doses: whether they have doses.
        running_threshold: of the running gate whose p(fail) the tokens have; None where they have none.
    """

    model: str
    task: str
    split: str
    word: str
    sentence: str
    condition: str
    outcomes: Mapping[str, Sequence[Outcome]]
    problems: Mapping[str, Problem]
    strength: float
    threshold: float | None = None
    tokens: Mapping[tuple[str, str, int, int], ResponseTokens] = field(default_factory=dict)
    token_text: Mapping[int, str] = field(default_factory=dict)
    neurons: Sequence[ViewNeuron] = ()
    notes: tuple[str, ...] = ()
    contributions: bool = False
    doses: bool = False
    running_threshold: float | None = None


def render_view(view: View, *, limit: int | None = SIZE_LIMIT, live: bool = False) -> str:
    """The page. All text in it is data that no browser runs: the content security policy allows this one script and no request.

    Args:
        view: what it shows.
        limit: of its bytes; None for none.
        live: whether it is served and may ask its own server.
    """
    script = _bundle()
    style = _asset("view.css")
    packed = _pack(view, None if limit is None else limit - len(script) - len(style) - 20_000)
    meta = {**packed.meta, "live": live}
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}"
    )
    return (
        environment()
        .get_template("view.html.j2")
        .render(
            title=f"{view.model} on {view.task}",
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            meta=safe_json(meta),
            chunks=list(enumerate(packed.chunks)),
        )
    )


def safe_json(value: object) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element, and no line separator is left in it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _bundle() -> str:
    """All scripts in one function, so that they share names and leave none behind."""
    return '(() => {\n"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();"


def _asset(name: str) -> str:
    return files("trimtab.report").joinpath("view", name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


class _Packed(NamedTuple):
    meta: dict[str, object]
    chunks: list[str]


class _Row(NamedTuple):
    """A pair: which response of which problem, in every condition that has it."""

    base: Outcome
    by_condition: Mapping[str, Outcome]


def _pack(view: View, limit: int | None) -> _Packed:
    rows = _rows(view)
    words = _Words(view.token_text)
    meta = _meta(view, rows)
    left = math.inf if limit is None else limit - len(safe_json(meta))
    order = sorted(range(len(rows)), key=lambda i: not _flipped(rows[i], view.condition))
    chunks: list[str] = []
    where: dict[int, int] = {}
    # the words are written last, when it is known which are used; until then they count with what all of them take
    left -= len(_zipped(words.known())) if words.text else 0
    for part in _parts(order):
        chunk = _chunk(view, part, rows, words)
        if len(chunk) > left:
            break
        left -= len(chunk)
        where |= dict.fromkeys(part, len(chunks))
        chunks.append(chunk)
    others: dict[int, int] = {}
    names = [name for name in view.outcomes if name not in (UNSTEERED, view.condition)]
    for part in _parts(list(where)) if names else ():
        chunk = _others(part, rows, names)
        if len(chunk) > left:
            break
        left -= len(chunk)
        others |= dict.fromkeys(part, len(chunks))
        chunks.append(chunk)
    meta["chunk"] = [where.get(i, -1) for i in range(len(rows))]
    meta["others"] = [others.get(i, -1) for i in range(len(rows))]
    meta["words"] = len(chunks)
    meta["wide"] = words.wide
    meta["notes"] = [*view.notes, *_left_out(view, rows, where, others, bool(names))]
    return _Packed(meta, [*chunks, _zipped(json.dumps(words.used()).encode())])


def _left_out(
    view: View, rows: Sequence[_Row], where: Mapping[int, int], others: Mapping[int, int], any_other: bool
) -> list[str]:
    notes = []
    if len(where) < len(rows):
        flips = sum(_flipped(row, view.condition) for row in rows)
        held = sum(_flipped(rows[i], view.condition) for i in where)
        which = "all flips" if held == flips else f"{held:,} of {flips:,} flips"
        notes.append(
            f"This file holds the texts of {len(where):,} of {len(rows):,} pairs, {which} among them; every pair is counted and "
            "listed. trimtab view RUN --serve shows all."
        )
    if any_other and len(others) < len(where):
        notes.append(
            f"Responses of the other conditions are in this file for {len(others):,} pairs; trimtab view RUN --serve shows all."
        )
    return notes


def _parts(order: Sequence[int]) -> Iterator[Sequence[int]]:
    return (order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK))


def _rows(view: View) -> list[_Row]:
    """The pairs of the judged condition, in the order of the problems; each other condition's response where it has that one."""
    pairs: dict[tuple[str, int, int], dict[str, Outcome]] = {}
    base = view.outcomes[UNSTEERED]
    for before, after in matched(base, view.outcomes[view.condition]):
        pairs[before.problem_id, *before.key] = {UNSTEERED: before, view.condition: after}
    for name, outcomes in view.outcomes.items():
        if name not in (UNSTEERED, view.condition):
            answered = {outcome.problem_id for outcome in outcomes}  # some conditions are run on some of the problems
            for before, after in matched([outcome for outcome in base if outcome.problem_id in answered], outcomes):
                row = pairs.get((before.problem_id, *before.key))
                if row is not None:
                    row[name] = after
    return [_Row(row[UNSTEERED], row) for row in pairs.values()]


def _flipped(row: _Row, condition: str) -> bool:
    return row.base.correct != row.by_condition[condition].correct


def _meta(view: View, rows: Sequence[_Row]) -> dict[str, object]:
    """What the list shows: counts of every condition, and every pair in columns."""
    names = [UNSTEERED, view.condition, *(name for name in view.outcomes if name not in (UNSTEERED, view.condition))]
    return {
        "format": FORMAT,
        "model": view.model,
        "task": view.task,
        "split": view.split,
        "word": view.word,
        "sentence": view.sentence,
        "condition": view.condition,
        "strength": view.strength,
        "threshold": view.threshold,
        "conditions": names,
        "problem": [row.base.problem_id for row in rows],
        "seed": [row.base.seed for row in rows],
        "sample": [row.base.sample for row in rows],
        "question": [view.problems[row.base.problem_id].question[:_SNIPPET] for row in rows],
        "domain": [row.base.domain for row in rows],
        "pFail": [_rounded(_p_fail(row)) for row in rows],
        "flags": {name: [_flags(row.by_condition.get(name)) for row in rows] for name in names},
        "length": {name: [row.by_condition[name].tokens if name in row.by_condition else 0 for row in rows] for name in names},
        "divergence": {name: [_divergence(view, row, name) for row in rows] for name in names[1:]},
        "neurons": [_neuron(neuron) for neuron in view.neurons],
        "tokens": bool(view.tokens),
        "contributions": view.contributions,
        "doses": view.doses,
        "running": _rounded(view.running_threshold),
        "size": _CHUNK,
    }


def _neuron(neuron: ViewNeuron) -> dict[str, object]:
    plain = asdict(neuron)
    for name in ("gain", "shift", "norm", "correct_mean", "incorrect_mean"):
        plain[name] = _rounded(plain[name])
    return plain


def _p_fail(row: _Row) -> float | None:
    found = [outcome.p_fail for outcome in row.by_condition.values() if outcome.p_fail is not None]
    return found[0] if found else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


_CORRECT, _UNSCORED, _TRUNCATED, _FIRED, _GUESSED, _DISAGREE, _MISSING, _MISSTEPS = 1, 2, 4, 8, 16, 32, 64, 128


def _flags(outcome: Outcome | None) -> int:
    if outcome is None:
        return _MISSING
    marks = {
        _CORRECT: outcome.correct,
        _UNSCORED: outcome.unscored,
        _TRUNCATED: outcome.truncated,
        _FIRED: bool(outcome.fired),
        _GUESSED: reading(outcome) == "guessed",
        _MISSTEPS: outcome.correct and outcome.steps_right is False,
        _DISAGREE: DISAGREEMENT in outcome.reason,
    }
    return sum(mark for mark, on in marks.items() if on)


def _divergence(view: View, row: _Row, name: str) -> int:
    """The first token, or without tokens the first word, in which a response leaves the unsteered one; -1 for none."""
    other = row.by_condition.get(name)
    if other is None or other.response == row.base.response:
        return -1
    keys = [(condition, row.base.problem_id, o.seed, o.sample) for condition, o in ((UNSTEERED, row.base), (name, other))]
    tokens = [view.tokens[key].ids for key in keys if key in view.tokens]
    one, two = tokens if len(tokens) == 2 else (row.base.response.split(), other.response.split())
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


class _Words:
    """The texts of tokens, numbered in the order in which they are met."""

    def __init__(self, text: Mapping[int, str]) -> None:
        self.text = text
        self.wide = len(text) > np.iinfo(np.uint16).max
        self._numbers: dict[int, int] = {}

    def numbers(self, ids: Sequence[int]) -> bytes:
        """Little-endian, of two bytes each, or four in a file of many tokens."""
        found = [self._numbers.setdefault(i, len(self._numbers)) for i in ids]
        return np.array(found, "<u4" if self.wide else "<u2").tobytes()

    def used(self) -> list[str]:
        return [self.text[i] for i in self._numbers]

    def known(self) -> bytes:
        return json.dumps(list(self.text.values())).encode()


def _zipped(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _framed(header: object, blob: bytes) -> str:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return _zipped(len(text).to_bytes(4, "little") + text + blob)


def _chunk(view: View, part: Sequence[int], rows: Sequence[_Row], words: _Words) -> str:
    """Texts and tokens of the judged pair."""
    header: dict[int, object] = {}
    blob = bytearray()
    for i in part:
        row = rows[i]
        problem = view.problems[row.base.problem_id]
        entry: dict[str, object] = {"question": problem.question, "gold": problem.answer, "choices": problem.choices}
        for side, name in (("base", UNSTEERED), ("steered", view.condition)):
            outcome = row.by_condition[name]
            found = view.tokens.get((name, outcome.problem_id, outcome.seed, outcome.sample))
            entry[side] = _response(outcome) | ({} if found is None else {"tokens": _tokens(found, words, blob)})
        header[i] = entry
    return _framed(header, bytes(blob))


def _others(part: Sequence[int], rows: Sequence[_Row], names: Sequence[str]) -> str:
    """Texts of the other conditions; none where a response is the unsteered one's."""
    header = {
        i: {
            name: _response(outcome) | ({"text": None} if outcome.response == rows[i].base.response else {})
            for name in names
            if (outcome := rows[i].by_condition.get(name)) is not None
        }
        for i in part
    }
    return _framed(header, b"")


def _response(outcome: Outcome) -> dict[str, object]:
    return {
        "text": outcome.response,
        "answer": outcome.answer,
        "reason": outcome.reason,
        "score": outcome.score.value,
        "steps": outcome.steps_right,
        "length": outcome.tokens,
    }


def _tokens(found: ResponseTokens, words: _Words, blob: bytearray) -> dict[str, object]:
    """Where a response's arrays lie, in the order in which ``codec.js`` reads them."""
    rows = found.rows
    n_neurons = rows.neuron.shape[1]
    start = len(blob)
    blob += np.array([_utf16(piece) for piece in found.pieces], "<u2").tobytes()
    blob += words.numbers(found.ids)
    blob += _nats(rows.logprob)
    blob += words.numbers(rows.alternative.ravel().tolist())
    blob += _nats(rows.alternative_logprob.ravel())
    acted = bool(rows.acted.any())
    scale, dose = 0.0, 0.0
    if acted:
        scale = float(max(np.abs(rows.total).max(), np.abs(rows.contribution).max(initial=0.0)))
        dose = float(rows.dose.max())
        blob += rows.neuron.astype("<u2").tobytes()
        blob += rows.acted.astype(np.uint8).tobytes()
        blob += _levels(rows.total, scale, 127, np.int8)
        blob += _levels(rows.contribution, scale, 127, np.int8)
        blob += _levels(rows.dose, dose, 255, np.uint8)
    if rows.p_fail is not None:
        blob += _levels(rows.p_fail, 1.0, 255, np.uint8)
    blob += b"\0" * (-len(blob) % 4)
    return {
        "at": start,
        "n": len(found.ids),
        "alternatives": rows.alternative.shape[1],
        "neurons": n_neurons if acted else 0,
        "running": rows.p_fail is not None,
        "scale": scale,
        "dose": dose,
        "strength": found.strength,
    }


def _utf16(piece: str) -> int:
    return min(len(piece.encode("utf-16-le", "surrogatepass")) // 2, 65_535)


def _nats(logprob: NDArray[np.float32]) -> bytes:
    """Thousandths of a nat of surprise, at most 65."""
    return np.clip(np.round(-logprob * _NATS), 0, 65_535).astype("<u2").tobytes()


def _levels(values: NDArray[np.float32], scale: float, steps: int, dtype: type[np.integer]) -> bytes:
    """Eight bits of a scale."""
    return (np.round(values / scale * steps) if scale > 0 else np.zeros_like(values)).astype(dtype).tobytes()
