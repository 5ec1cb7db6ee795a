"""CommonsenseQA: five choices; the official test split has no answers, so the validation split is the test."""

from trimtab.errors import InputError
from trimtab.tasks.benchmark import FIND_AND_TUNE, TEST, Benchmark, Decoding, Entry, Part, cell
from trimtab.tasks.benchmarks.wording import CHOICE
from trimtab.tasks.choices import letter_of, lettered
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind

LETTERS = ["A", "B", "C", "D", "E"]


def entry(row: Row) -> Entry:
    """``question``, ``choices`` as ``{"label": [...], "text": [...]}`` and ``answerKey``."""
    choices = row.get("choices")
    if not isinstance(choices, dict) or list(choices.get("label", [])) != LETTERS or len(choices.get("text", [])) != len(LETTERS):
        raise InputError(f'choices must be {{"label": {LETTERS}, "text": [five texts]}}, got {str(choices)[:120]}')
    texts = tuple(str(text) for text in choices["text"])
    return Entry(
        question=lettered(cell(row, "question").strip(), texts),
        answer=letter_of(cell(row, "answerKey"), texts),
        id=cell(row, "id"),
        choices=texts,
    )


def _without_key(row: Row) -> str:
    return "" if row.get("answerKey", "missing") else "has an empty answerKey"


COMMONSENSE_QA = Benchmark(
    name="commonsense-qa",
    title="CommonsenseQA",
    parts=(
        Part("tau/commonsense_qa", "train", FIND_AND_TUNE, leaves_out=_without_key),
        Part("tau/commonsense_qa", "validation", TEST, leaves_out=_without_key),
    ),
    kind=AnswerKind.CHOICE,
    entry=entry,
    prompt=CHOICE,
    decoding=Decoding(max_new_tokens=2048),
)
