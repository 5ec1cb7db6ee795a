"""Neuron sets for the tiny testbed model, and a grader whose verdicts are arbitrary but depend on the response alone."""

import hashlib
from collections.abc import Sequence

import numpy as np

from trimtab.gate import Gate
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.tasks import Judgement
from trimtab.traces import Problem, Score


def neuron_set(model: ModelIdentity, k: int = 6, criterion: str = "mean-difference", scale: float = 8.0) -> Neurons:
    """k neurons spread over the layers, with large differences of random sign."""
    rng = np.random.default_rng(len(criterion))
    flat = rng.permutation(model.n_neurons)[:k]
    good = rng.normal(0.0, scale, k).astype(np.float32)
    return Neurons(flat // model.d_ff, flat % model.d_ff, np.arange(k, 0, -1.0), good, np.zeros(k, np.float32), criterion, model)


def logistic(threshold: float = 0.5) -> Gate:
    """A gate on two neurons of the first layer."""
    return Gate("logistic", "hard", np.array([0, 0]), np.array([7, 9]), np.array([5.0, -4.0], np.float32), 0.1, threshold)


class CoinGrader:
    """About 60 % correct, by a hash of problem and response; a truncated response never gets here."""

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """Correct or not, the same for the same response."""
        return [self._flip(problem, response) for problem, response in answers]

    @staticmethod
    def _flip(problem: Problem, response: str) -> Judgement:
        byte = hashlib.blake2b(f"{problem.id} {response}".encode(), digest_size=1).digest()[0]
        return Judgement(Score.CORRECT if byte < 150 else Score.INCORRECT, "a coin", response[-1:])
