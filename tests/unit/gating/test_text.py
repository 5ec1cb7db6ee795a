"""The text-only baseline gets a fair chance: words, phrases, signs and lengths."""

import numpy as np
import pytest

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gating import fit_text
from trimtab.gating.text import TextFeatures
from trimtab.stats.auroc import auroc

WORDS = ["alpha", "beta", "gamma", "delta", "3", "-4", "+7", "x", "y"]


def questions(seed: int, n: int, kind: str) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    failed = rng.random(n) < 0.5
    texts = []
    for flag in failed:
        words = rng.choice(WORDS, rng.integers(8, 12)).tolist()
        if kind == "word":
            words.insert(3, "hard" if flag else "easy")
        elif kind == "letter":
            words.insert(3, "u" if flag else "v")
        elif kind == "sign":
            words.insert(3, "~" if flag else "=")
        elif kind == "order":
            words += ["then", "not", "so"] if flag else ["so", "then", "not"]
        elif kind == "length" and flag:
            words += rng.choice(WORDS, 4).tolist()
        texts.append(" ".join(words))
    return texts, failed


@pytest.mark.parametrize("kind", ["word", "letter", "sign", "order", "length"])
def test_learns_what_the_text_tells(kind):
    baseline = fit_text(*questions(0, 120, kind))
    texts, failed = questions(1, 200, kind)
    p = baseline.probability(texts)
    assert p.shape == (200,)
    assert ((p > 0) & (p < 1)).all()
    assert auroc(failed, p) > 0.9


def test_shuffled_labels_give_nothing():
    areas = []
    for seed in range(4):
        texts, failed = questions(seed, 80, "word")
        baseline = fit_text(texts, np.random.default_rng(seed).permutation(failed), seed=seed)
        held_out, _ = questions(10 + seed, 200, "word")
        areas.append(auroc(np.random.default_rng(seed).random(200) < 0.5, baseline.probability(held_out)))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.06)


def test_features_by_hand():
    features = TextFeatures.fit(["a -3 b ?", "a a"])
    matrix = features.apply(["a -3 b ?", "a a"]).toarray()
    names = features.vectoriser.get_feature_names_out().tolist()
    assert {"a", "-3", "b", "?", "a -3", "a -3 b", "-3 b ?", "a a"} <= set(names)
    # words 4 and 2, characters 8 and 3, numbers 1 and 0: two values standardise to +1 and -1
    np.testing.assert_allclose(matrix[:, -4:], [[1, 1, 1, 1], [-1, -1, -1, -1]])


def test_a_constant_length_is_no_feature():
    features = TextFeatures.fit(["a b", "c d"])
    assert not features.apply(["a b", "c d"]).toarray()[:, -4:].any()


def test_unknown_words_are_no_error():
    baseline = fit_text(*questions(0, 60, "word"))
    assert np.isfinite(baseline.probability(["entirely different", ""])).all()


def test_refusals():
    texts, failed = questions(0, 60, "word")
    with pytest.raises(InputError, match="59 questions with 60 labels"):
        fit_text(texts[1:], failed)
    with pytest.raises(NotEnoughDataError, match="got 5 failed and 55 solved"):
        fit_text(texts, np.arange(60) < 5)
    with pytest.raises(InputError, match=r"none of \d+ questions holds a word"):
        fit_text([" "] * 60, failed)
