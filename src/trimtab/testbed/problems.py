"""Problems of the testbed: an instance and a wording, written as a question, and their assignment to splits."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.testbed.domains import DOMAINS, LABELS, Instance
from trimtab.testbed.wordings import CLOSINGS, HELD_OUT, OPENINGS, WORDINGS, Wording

SPLIT_SHARES = (("pretraining", 0.70), ("train", 0.10), ("validation", 0.08), ("test", 0.12))
STREAMS: dict[str, str] = dict(zip(("train", "validation", "test"), ("find", "tune", "test"), strict=True))
"""What seeds a split's problems and begins their ids: the words of the days when the bundled models were measured. Ids seed the
sampling, so other words would be other problems and other traces."""
RARE_SHARE = 0.10
MAX_STEPS = len(LABELS)


@dataclass(frozen=True, slots=True)
class TestbedProblem:
    """A question of the testbed with all that is known about it except how its author will work."""

    __test__ = False

    instance: Instance
    wording: Wording

    @property
    def question(self) -> str:
        items = " ".join(f"{label} {' '.join(item)}" for label, item in zip(LABELS, self.instance.items, strict=False))
        header = DOMAINS[self.instance.domain].header
        return f"{self.wording.opening} {header} {self.instance.start} : {items} {self.wording.closing} ?"

    @property
    def answer(self) -> str:
        return DOMAINS[self.instance.domain].answer(self.instance)


def split_of(question: str) -> str:
    """Split by a hash of the question, so that no question can be in two; ``pretraining`` is what the model learned from."""
    share = int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big") / 2**64
    for name, width in SPLIT_SHARES:
        if share < width:
            return name
        share -= width
    return SPLIT_SHARES[-1][0]


def draw(rng: random.Random, domain: str, steps: int, wording: Wording | None = None) -> TestbedProblem:
    """One random problem; a tenth of them holds a rare item."""
    instance = DOMAINS[domain].draw(rng, steps, rng.random() < RARE_SHARE)
    return TestbedProblem(instance, wording or rng.choice(WORDINGS))


def unique_problems(split: str, n: int, seed: int, min_steps: int = 2, max_steps: int = MAX_STEPS) -> Iterator[TestbedProblem]:
    """Yield n different problems of a split, domains in turn and steps uniform; train-split problems avoid held-out wordings."""
    rng = random.Random(f"{STREAMS[split]}-{seed}")
    names = list(DOMAINS)
    seen: set[str] = set()
    while len(seen) < n:
        problem = draw(rng, names[len(seen) % len(names)], rng.randint(min_steps, max_steps))
        question = problem.question
        if question in seen or split_of(question) != split or (split == "train" and str(problem.wording) in HELD_OUT):
            continue
        seen.add(question)
        yield problem


def parse(question: str) -> TestbedProblem:
    """Read a question back; raises ValueError for a text that is none."""
    words = question.split()
    headers = {d.header: d for d in DOMAINS.values()}
    if len(words) < 8 or words[0] not in OPENINGS or words[1] not in headers or words[3] != ":" or words[-1] != "?":
        raise ValueError(f"not a testbed question: {question!r}")
    for closing in CLOSINGS:
        tail = closing.split()
        if words[-1 - len(tail) : -1] == tail:
            break
    else:
        raise ValueError(f"no known closing in {question!r}")
    domain = headers[words[1]]
    body = words[4 : -1 - len(tail)]
    size = domain.width + 1
    if len(body) % size or tuple(body[::size]) != LABELS[: len(body) // size]:
        raise ValueError(f"items are not labelled in order in {question!r}")
    items = tuple(tuple(body[i + 1 : i + size]) for i in range(0, len(body), size))
    return TestbedProblem(Instance(domain.name, words[2], items), Wording(words[0], closing))
