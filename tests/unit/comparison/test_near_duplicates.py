"""Documents that are almost the same count once, as the problems of a study do, whichever tool wrote the file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from comparison_samples import write_rows
from outcome_samples import outcomes, run_folder
from trimtab.comparison import compare
from trimtab.comparison.results import own_texts
from trimtab.errors import InputError
from trimtab.evaluation.verdict import paired
from trimtab.stats.estimates import bootstrap_macro
from trimtab.store import write_json

ALIKE = [f"Tom has {i} apples and eats {i + 3} of them{' ' * space}." for i in range(4) for space in range(6)]
"""Four problems, each six times with another space."""
A, B = "0" * 24, "10" * 12
TOPICS = [
    "bees",
    "maps",
    "rivers",
    "glass",
    "salt",
    "iron",
    "music",
    "snow",
    "bread",
    "wool",
    "tides",
    "moss",
    "clocks",
    "ink",
    "rope",
    "tin",
    "oak",
    "sand",
    "lamps",
    "jade",
]
SHOTS = [f"Q: What is {i} + {i}? A: {2 * i}." for i in range(8)]


def rows(texts: Sequence[str], pattern: str, column: str, **more: object) -> list[dict[str, object]]:
    return [
        {"id": i, "correct": one == "1", column: text, **more} for i, (text, one) in enumerate(zip(texts, pattern, strict=True))
    ]


def harness_rows(texts: Sequence[str], pattern: str) -> list[dict[str, object]]:
    """Other solved examples before each document, which has a name of its own, too."""
    return [
        {
            "doc_id": i,
            "doc": {"id": 1000 + i, "question": text, "answer": "3"},
            "target": "3",
            "arguments": {"gen_args_0": {"arg_0": "\n".join([*SHOTS[i % 8 :], *SHOTS[: i % 8], text])}},
            "resps": [["x"]],
            "filtered_resps": ["x"],
            "match": int(one),
        }
        for i, (text, one) in enumerate(zip(texts, pattern, strict=True))
    ]


def two(folder: Path, form: str, texts: Sequence[str], *patterns: str) -> list[Path]:
    """Two files; the harness names a task after its file."""
    files = []
    for name, pattern in zip("ab", patterns, strict=True):
        (folder / name).mkdir()
        files.append(write_rows(folder / name / "rows.jsonl", FORMS[form](texts, pattern)))
    return files


FORMS: dict[str, Callable[[Sequence[str], str], list[dict[str, object]]]] = {
    "prompt": lambda texts, pattern: rows(texts, pattern, "prompt"),
    "prompt with an instruction": lambda texts, pattern: rows(
        [f"{' '.join(SHOTS)}\nSolve step by step. {text} Answer with a number." for text in texts], pattern, "prompt"
    ),
    "question": lambda texts, pattern: rows(texts, pattern, "question", prompt="the same for all"),
    "harness": harness_rows,
}


@pytest.mark.parametrize("form", FORMS)
def test_four_problems_six_times_are_four(tmp_path: Path, form: str) -> None:
    a, b = two(tmp_path, form, ALIKE, A, B)
    (against,) = compare(a, b).against
    c = against.overall
    assert c is not None
    assert (c.n, c.clusters, c.fixed, c.test, c.p) == (24, 4, 12, "permutation", 2 / 2**4)
    assert (against.word, against.tasks[0].comparison) == ("no evidence", c)
    assert "p = 0.12; 12 fixed, 0 broken, n = 24 in 4 clusters of near-duplicates, each of which counts once" in against.sentence
    assert "24  4 " in repr(compare(a, b)), "a column of the table"
    assert compare(a, b).to_json()["against"][0]["overall"]["clusters"] == 4  # type: ignore[index]


@pytest.mark.parametrize("form", FORMS)
def test_documents_that_only_begin_alike_stay_apart(tmp_path: Path, form: str) -> None:
    texts = [f"How many {topic} does Tom see in the {other}?" for topic, other in zip(TOPICS, TOPICS[::-1], strict=True)]
    a, b = two(tmp_path, form, texts, "0" * 20, "1" * 20)
    (against,) = compare(a, b).against
    assert against.overall is not None
    assert (against.overall.clusters, against.overall.test) == (None, "McNemar")
    assert "lusters" not in repr(compare(a, b))


def test_without_a_text_it_is_said_that_they_were_not_looked_for(tmp_path: Path) -> None:
    a, b = (write_rows(tmp_path / f"{name}.jsonl", rows([""] * 24, pattern, "prompt")) for name, pattern in (("a", A), ("b", B)))
    (against,) = compare(a, b).against
    assert against.word == "better"
    assert against.sentence.endswith(
        "Near-duplicates among the documents would count as independent: no text of them is in the inputs."
    )
    some = write_rows(tmp_path / "some.jsonl", rows([*ALIKE[:18], *[""] * 6], A, "question"))
    (against,) = compare(some, b).against
    assert against.overall is not None
    assert against.overall.clusters == 3 + 6
    assert "Near-duplicates among 6 of 24 documents would count as independent" in against.sentence


def test_the_text_of_one_input_is_enough(tmp_path: Path) -> None:
    with_text = write_rows(tmp_path / "with.jsonl", rows(ALIKE, A, "prompt"))
    without = write_rows(tmp_path / "without.jsonl", rows([""] * 24, B, "prompt"))
    for pair in ((with_text, without), (without, with_text)):
        overall = compare(*pair).against[0].overall
        assert overall is not None
        assert overall.clusters == 4


def test_one_id_with_another_question_is_refused(tmp_path: Path) -> None:
    a, b = (write_rows(tmp_path / f"{i}.jsonl", rows([f"question {i}"], "1", "question")) for i in range(2))
    with pytest.raises(InputError, match="hold other documents under the same ids"):
        compare(a, b)


def test_they_are_found_over_all_tasks_and_drawn_together_in_the_macro_average(tmp_path: Path) -> None:
    texts = [*ALIKE, *(f"What are {topic} for?" for topic in TOPICS[:6])]
    patterns = A + "000000", B + "101101"
    files = []
    for name, pattern in zip("ab", patterns, strict=True):
        found = rows(texts, pattern, "question")
        files.append(write_rows(tmp_path / f"{name}.jsonl", [row | {"task": "ab"[i % 2]} for i, row in enumerate(found)]))
    (against,) = compare(*files).against
    assert against.overall is not None
    assert against.overall.clusters == 4 + 6
    assert [row.comparison.clusters for row in against.tasks] == [4 + 3, 4 + 3]
    gains = np.array([int(one) for one in patterns[1]], float)
    order = [*range(0, 30, 2), *range(1, 30, 2)]
    clusters = [str(i // 6) if i < 24 else f"own {i}" for i in order]
    assert against.macro is not None
    expected = bootstrap_macro(gains[order], np.repeat([0, 1], 15), clusters)
    assert against.macro.low == pytest.approx(expected.low, abs=0.03)
    assert against.macro.high == pytest.approx(expected.high, abs=0.03)
    narrow = bootstrap_macro(gains[order], np.repeat([0, 1], 15))
    assert against.macro.high - against.macro.low > 1.3 * (narrow.high - narrow.low)


def test_clusters_of_a_run_are_those_of_its_evaluation(tmp_path: Path) -> None:
    rows_of = {name: outcomes("gated", pattern) for name, pattern in (("a", A), ("b", B))}
    runs = [run_folder(tmp_path / name, found) for name, found in rows_of.items()]
    clusters = {f"p{i}": f"p{i // 6 * 6}" for i in range(24)}
    within = {first: [name for name, own in clusters.items() if own == first] for first in dict.fromkeys(clusters.values())}
    for run in runs:
        (folder,) = (run / "problems").iterdir()
        write_json(folder / "problems.json", {"splits": {"near_duplicates": {"within": within}}})
    (against,) = compare(*runs).against
    assert against.overall == paired(rows_of["a"], rows_of["b"], clusters)
    for run in runs:  # the testbed says nothing of splits: its problems are unique, though all of one form
        (folder,) = (run / "problems").iterdir()
        write_json(folder / "problems.json", {})
    overall = compare(*runs).against[0].overall
    assert overall is not None
    assert (overall.clusters, overall.test) == (None, "McNemar")


@pytest.mark.parametrize(
    ("prompts", "own"),
    [
        ([], []),
        (["a b"], ["b"]),
        (["same text", "same text"], ["text", "text"]),
        (["", "x"], ["", "x"]),
        (["Solve: 2 + 2 now", "Solve: 3 + 3 now"], ["2 + 2", "3 + 3"]),
        (["do a b", "do a"], ["a b", "a"]),
        (["do a x", "do b a x"], ["a", "b a"]),
    ],
)
def test_what_is_a_prompts_own(prompts: list[str], own: list[str]) -> None:
    assert own_texts(prompts) == own


def test_json_of_the_flips_holds_the_question(tmp_path: Path) -> None:
    a, b = (write_rows(tmp_path / f"{name}.jsonl", rows(ALIKE, pattern, "question")) for name, pattern in (("a", A), ("b", B)))
    text = json.dumps(compare(a, b).to_json(flips=True))
    assert "Tom has 0 apples" in text
