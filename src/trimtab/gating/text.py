"""Failure predicted from the wording alone: the baseline that a gate on activations has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from trimtab.errors import InputError
from trimtab.gating.probe import Fold, Linear, calibrate, check_classes, cross_validate, fit_linear
from trimtab.stats.auroc import auroc

# signed numbers and one-letter words count as words, and every other sign as a word of its own
WORD = r"[+-]?\w+|[^\w\s]"


@dataclass(frozen=True, slots=True, eq=False)
class TextBaseline:
    """``p(fail)`` from a question's words; fitted by :func:`fit_text`."""

    features: "TextFeatures"
    line: Linear
    facts: dict[str, object] = field(default_factory=dict)

    def probability(self, questions: Sequence[str]) -> NDArray[np.float64]:
        """p(fail) ``[question]``."""
        return np.exp(-np.logaddexp(0.0, -(self.features.apply(questions) @ self.line.weight + self.line.bias)))


@dataclass(frozen=True, slots=True, eq=False)
class TextFeatures:
    """TF-IDF of word 1-to-3-grams beside standardised lengths: words, log words, characters, numbers."""

    vectoriser: TfidfVectorizer
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def fit(cls, questions: Sequence[str]) -> "TextFeatures":
        """Learn vocabulary, document frequencies and spread of the lengths; raises InputError when no question has a word."""
        if not any(question.strip() for question in questions):
            raise InputError(f"none of {len(questions)} questions holds a word; the text baseline needs the questions' text")
        vectoriser = TfidfVectorizer(ngram_range=(1, 3), token_pattern=WORD).fit(questions)
        lengths = _lengths(questions, vectoriser)
        constant = (lengths == lengths[0]).all(axis=0)
        # a constant length is 0 after centring and stays 0 over a spread of 1
        return cls(vectoriser, lengths.mean(axis=0), np.where(constant, 1.0, lengths.std(axis=0)))

    def apply(self, questions: Sequence[str]) -> sparse.csr_matrix:
        """``[question, feature]``."""
        lengths = (_lengths(questions, self.vectoriser) - self.centre) / self.spread
        return sparse.csr_matrix(sparse.hstack([self.vectoriser.transform(questions), sparse.csr_matrix(lengths)]))


def fit_text(questions: Sequence[str], failed: NDArray[np.bool_], *, seed: int = 0) -> TextBaseline:
    """Fit the baseline just as the gate is fitted: L2 logistic regression, the same cross-validation, the same calibration.

    Args:
        questions: the problems' text.
        failed: bool ``[problem]``.
        seed: of the folds; give the gate's, so that both see the same folds.

    Raises:
        InputError: lengths differ, or no question holds a word.
        NotEnoughDataError: fewer than 10 failed or 10 solved problems.
    """
    if len(questions) != len(failed) or failed.dtype != np.bool_:
        raise InputError(f"{len(questions)} questions with {len(failed)} labels of {failed.dtype}; give one bool per question")
    check_classes(failed)

    def design(fold: Fold) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        train = [questions[int(row)] for row in fold.rows]
        features = TextFeatures.fit(train)
        return features.apply(train), features.apply([questions[int(row)] for row in fold.held_out])

    chosen = cross_validate(design, failed, seed)
    calibration = calibrate(chosen.logit, failed)
    features = TextFeatures.fit(questions)
    line = fit_linear(features.apply(questions), failed, chosen.c)
    return TextBaseline(
        features,
        Linear(calibration.slope * line.weight, calibration.slope * line.bias + calibration.intercept),
        {
            "inverse_penalty": chosen.c,
            "held_out_log_loss": chosen.log_loss,
            "held_out_auroc": auroc(failed, chosen.logit),
            "n_features": len(line.weight),
            "seed": seed,
        },
    )


def _lengths(questions: Sequence[str], vectoriser: TfidfVectorizer) -> NDArray[np.float64]:
    """Words, log(1 + words), characters and numbers of each question, ``[question, 4]``."""
    tokenise = vectoriser.build_tokenizer()
    rows = []
    for question in questions:
        words = tokenise(question)
        numbers = sum(word.lstrip("+-").isdecimal() for word in words)
        rows.append((len(words), np.log1p(len(words)), len(question), numbers))
    return np.array(rows, np.float64)
