"""The verdict by hand and by the statistics it stands on."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from comparison_samples import PUBLISHED, simple_rows, write_rows
from trimtab.comparison import compare
from trimtab.errors import InputError
from trimtab.stats.estimates import bootstrap_macro, newcombe_paired
from trimtab.stats.significance import holm, mcnemar_exact, sign_flip_p


@pytest.fixture
def file(tmp_path):
    """Writes patterns: a string for one task, or a string a task; of a list the samples."""

    def write(name: str, patterns):
        tasks = patterns if isinstance(patterns, dict) else {"": patterns}
        rows = []
        for task, samples in tasks.items():
            for number, pattern in enumerate([samples] if isinstance(samples, str) else samples):
                rows += simple_rows(pattern, **({"task": task} if task else {}), sample=number, response=f"{name} says")
        return write_rows(tmp_path / f"{name}.jsonl", rows)

    return write


def test_the_published_example(file) -> None:
    patterns = ["".join("01"[one] for one in side) for side in PUBLISHED]
    (against,) = compare(*(file(name, pattern) for name, pattern in zip("ab", patterns, strict=True))).against
    c = against.overall
    assert c is not None
    # p by summing the tail of a fair coin, which is exact McNemar
    assert c.p == pytest.approx(2 * stats.binom.sf(29, 42, 0.5))
    assert round(c.p, 3) == 0.008
    assert (c.gain_low, c.gain_high) == newcombe_paired(68, 30, 12, 110)
    assert against.word == "better"
    assert against.sentence.startswith(
        "Better: accuracy went from 36.4 % to 44.5 %, a gain of +8.2 points (95 % interval +2.4 to +13.8; exact McNemar "
        "p = 0.0079; 30 fixed, 12 broken, n = 220)."
    )


@pytest.mark.parametrize(("other", "word"), [("1" * 12, "better"), ("0" * 12, "worse"), ("101010101010", "no evidence")])
def test_words(file, other, word) -> None:
    assert compare(file("a", "000000111111"), file("b", other)).against[0].word == word


def test_several_samples_are_judged_by_document(file) -> None:
    base, other = ["1000000000", "0100000000"], ["1111111110", "0111111100"]
    (against,) = compare(file("a", base), file("b", other)).against
    c = against.overall
    assert c is not None
    differences = [sum(int(one[i]) for one in other) - sum(int(one[i]) for one in base) for i in range(10)]
    assert (c.test, c.base_k, c.k, c.n, c.pairs) == ("permutation", 2, 2, 10, 20)
    assert c.p == sign_flip_p(differences)
    assert (c.fixed, c.broken) == (14, 0)
    assert len(against.flips) == 14


TASKS = {"one": "0" * 12, "two": "01" * 10, "three": "1110000000"}
OTHER = {"one": "1" * 9 + "0" * 3, "two": "01" * 8 + "1111", "three": "0110000000"}


def test_several_tasks_have_holm_an_overall_verdict_and_a_macro_average(file) -> None:
    (against,) = compare(file("a", TASKS), file("b", OTHER)).against
    p = [mcnemar_exact(9, 0), mcnemar_exact(2, 0), mcnemar_exact(0, 1)]
    assert [row.comparison.p for row in against.tasks] == p
    assert [row.p_holm for row in against.tasks] == holm(p).tolist()
    assert [row.word for row in against.tasks] == ["better", "no evidence", "no evidence"]
    assert against.overall is not None
    assert (against.overall.n, against.overall.fixed, against.overall.broken) == (42, 11, 1)
    assert "Of 3 tasks, after Holm: better on 1, no evidence on 2." in against.sentence
    gains = {name: np.subtract(*(np.array(list(side[name]), int) for side in (OTHER, TASKS))) for name in TASKS}
    macro = against.macro
    assert macro is not None
    assert macro.gain == pytest.approx((9 / 12 + 2 / 20 - 1 / 10) / 3)
    expected = bootstrap_macro(np.concatenate(list(gains.values())), np.repeat([0, 1, 2], [12, 20, 10]))
    assert (macro.low, macro.high) == expected


def test_several_inputs_are_all_judged_against_the_first(file) -> None:
    a, b, c = file("a", "0" * 12), file("b", "1" * 7 + "0" * 5), file("c", "1" * 6 + "0" * 6)
    result = compare(a, b, c)
    p = [mcnemar_exact(7, 0), mcnemar_exact(6, 0)]
    assert [one.p_holm for one in result.against] == holm(p).tolist()
    assert [one.tasks[0].p_holm for one in result.against] == holm(p).tolist()
    assert [one.input.source for one in result.against] == [str(b), str(c)]
    assert "After Holm over 2 inputs p = 0.031." in result.against[0].sentence
    text = repr(result)
    assert text.count("B: ") == 2
    # alone it would pass: 2 / 2^6 = 0.031; of three such claims none does
    d = compare(a, c, c, c)
    assert [one.word for one in d.against] == ["no evidence"] * 3


def test_unscored_responses_are_bounded_and_too_many_give_no_verdict(file) -> None:
    (against,) = compare(file("a", "0" * 50 + "1" * 50), file("b", "u" + "1" * 99)).against
    assert against.word == "better"
    assert (against.tasks[0].base_unscored, against.tasks[0].unscored) == (0, 1)
    assert "0 problems of A and 1 of B could not be scored." in against.sentence
    (against,) = compare(file("a", "0" * 50 + "1" * 50), file("b", "uu" + "1" * 98)).against
    assert against.word == "no verdict"


def test_tasks_of_other_numbers_of_samples_have_no_overall_verdict(file) -> None:
    (against,) = compare(file("a", {"one": "0101", "two": ["01", "11"]}), file("b", {"one": "1111", "two": ["01", "11"]})).against
    assert (against.overall, against.p_holm, against.word) == (None, None, "no verdict")
    assert [row.comparison.k for row in against.tasks] == [1, 2]
    assert against.macro is not None


def test_the_value_shows_itself(file) -> None:
    result = compare(file("a", TASKS), file("b", OTHER))
    frame = result.to_pandas()
    assert frame["task"].tolist() == list(TASKS)
    assert frame["p"].tolist() == [row.comparison.p for row in result.against[0].tasks]
    data = result.to_json(flips=True)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    (one,) = data["against"]  # type: ignore[misc]
    assert len(one["flips"]) == 12  # type: ignore[index]
    assert one["flips"][0]["other"]["response"] == "b says"  # type: ignore[index]
    lines = repr(result).splitlines()
    assert lines[1].startswith("B: ")
    table = lines[lines.index(next(line for line in lines if line.startswith("task "))) :]
    assert table[1].split()[:8] == ["one", "12", "0.0", "%", "75.0", "%", "+75.0", "[+37.8,"]
    assert "Macro average of 3 tasks: 26.7 % to 51.7 %, a gain of +25.0 points (95 % interval" in repr(result)
    assert result._repr_html_().startswith("<pre>A: ")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.alpha = 0.5  # type: ignore[misc]


def test_arguments_that_are_refused(file) -> None:
    a = file("a", "01")
    with pytest.raises(InputError, match="two inputs or more"):
        compare(a)
    with pytest.raises(InputError, match="a level lies between"):
        compare(a, a, alpha=0.9)
