"""Problems, the chains of thought that answer them, and their scores."""

from dataclasses import dataclass
from enum import StrEnum

from trimtab.errors import InputError


class Split(StrEnum):
    """``train`` finds neurons and fits the gate, ``validation`` chooses settings, ``test`` is opened by ``evaluate`` only."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Score(StrEnum):
    """``unscored`` means that the grader itself failed; no answer or a truncated response is ``incorrect``."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNSCORED = "unscored"


class AnswerKind(StrEnum):
    """The kind of a problem's answer, which chooses the grader."""

    EXACT = "exact"
    MATH = "math"
    CHOICE = "choice"
    YES_NO = "yes-no"
    CODE = "code"
    GYM = "gym"


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its gold answer.

    ``difficulty`` is the number of steps where it is known. ``choices`` are the options of a choice problem, in the order of
    their letters; ``tests`` is the JSON of a code problem's tests (:class:`trimtab.tasks.grading.code.CodeTests`), or of
    what the verifier of reasoning-gym generates the problem from.
    """

    id: str
    question: str
    answer: str
    split: Split
    domain: str = ""
    difficulty: int = 0
    kind: AnswerKind = AnswerKind.EXACT
    choices: tuple[str, ...] = ()
    tests: str = ""

    def __post_init__(self) -> None:
        if not self.id or not self.question:
            raise InputError(f"a problem needs an id and a question, got id={self.id!r} question={self.question[:80]!r}")


@dataclass(frozen=True, slots=True)
class Trace:
    """One chain of thought for one problem, as token ids and as text.

    ``prompt_ids`` are the forwarded tokens of the question (template included), ``response_ids`` the generated ones (end token
    included when the response ended). ``finish`` is ``stop`` or ``length``; imported text counts as ``stop`` unless it was cut.
    """

    id: str
    problem_id: str
    sample: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    text: str
    finish: str

    @property
    def truncated(self) -> bool:
        return self.finish == "length"


@dataclass(frozen=True, slots=True)
class ScoredTrace:
    """The score of a trace with a reason in words, and whether its steps were right where that is known."""

    trace_id: str
    problem_id: str
    score: Score
    reason: str
    answer: str = ""
    quality: bool | None = None
