"""The benchmarks of choices: CommonsenseQA, MMLU, and StrategyQA, whose answers are yes or no.

The official test split of CommonsenseQA has no answers, so its validation split is the test.
"""

from collections.abc import Sequence
from string import ascii_uppercase

from trimtab.errors import InputError
from trimtab.tasks.benchmark import CHOICE, FIND_AND_TUNE, TEST, YES_NO, Benchmark, Decoding, Entry, Part, cell
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind


def lettered(question: str, choices: Sequence[str]) -> str:
    r"""The question with one line per choice.

    Example:
        >>> lettered("Which is even?", ["3", "4"])
        'Which is even?\nA. 3\nB. 4'
    """
    if not 2 <= len(choices) <= len(ascii_uppercase):
        raise InputError(f"a choice problem needs 2 to {len(ascii_uppercase)} choices, got {len(choices)}")
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, choices, strict=False))])


def letter_of(answer: str, choices: Sequence[str]) -> str:
    """The gold letter, checked against the number of choices. Raises InputError when it names none of them."""
    letter = answer.strip().upper()
    letters = ascii_uppercase[: len(choices)]
    if len(letter) != 1 or letter not in letters:
        raise InputError(f"the gold answer {answer[:60]!r} names no choice; accepted: one letter of {', '.join(letters)}")
    return letter


def yes_or_no(answer: object) -> str:
    """``yes`` or ``no`` from a boolean or a word. Raises InputError for anything else."""
    word = {"true": "yes", "yes": "yes", "false": "no", "no": "no"}.get(str(answer).strip().lower())
    if word is None:
        raise InputError(f"the gold answer {str(answer)[:60]!r} is neither yes nor no; accepted: true, false, yes, no")
    return word


FIVE_LETTERS = ["A", "B", "C", "D", "E"]


def commonsense_qa_entry(row: Row) -> Entry:
    """``question``, ``choices`` as ``{"label": [...], "text": [...]}`` and ``answerKey``."""
    choices = row.get("choices")
    labels, texts = (choices.get("label", []), choices.get("text", [])) if isinstance(choices, dict) else ([], [])
    if list(labels) != FIVE_LETTERS or len(texts) != len(FIVE_LETTERS):
        raise InputError(f'choices must be {{"label": {FIVE_LETTERS}, "text": [five texts]}}, got {str(choices)[:120]}')
    texts = tuple(str(text) for text in texts)
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
    entry=commonsense_qa_entry,
    prompt=CHOICE,
    decoding=Decoding(max_new_tokens=2048),
)


LETTERS = "ABCD"
SUBJECTS = (
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "business_ethics",
    "clinical_knowledge",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_medicine",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "econometrics",
    "electrical_engineering",
    "elementary_mathematics",
    "formal_logic",
    "global_facts",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_european_history",
    "high_school_geography",
    "high_school_government_and_politics",
    "high_school_macroeconomics",
    "high_school_mathematics",
    "high_school_microeconomics",
    "high_school_physics",
    "high_school_psychology",
    "high_school_statistics",
    "high_school_us_history",
    "high_school_world_history",
    "human_aging",
    "human_sexuality",
    "international_law",
    "jurisprudence",
    "logical_fallacies",
    "machine_learning",
    "management",
    "marketing",
    "medical_genetics",
    "miscellaneous",
    "moral_disputes",
    "moral_scenarios",
    "nutrition",
    "philosophy",
    "prehistory",
    "professional_accounting",
    "professional_law",
    "professional_medicine",
    "professional_psychology",
    "public_relations",
    "security_studies",
    "sociology",
    "us_foreign_policy",
    "virology",
    "world_religions",
)


def mmlu_entry(row: Row) -> Entry:
    """``question``, four ``choices``, the index of the right one in ``answer`` and the ``subject``."""
    choices, answer = row.get("choices"), cell(row, "answer")
    if not isinstance(choices, list) or len(choices) != len(LETTERS):
        raise InputError(f"choices must be a list of {len(LETTERS)} texts, got {str(choices)[:120]}")
    if answer not in {"0", "1", "2", "3"}:
        raise InputError(f"the answer must be the index of a choice, 0 to 3, got {answer!r}")
    texts = tuple(str(text) for text in choices)
    return Entry(
        question=lettered(cell(row, "question").strip(), texts),
        answer=LETTERS[int(answer)],
        domain=cell(row, "subject"),
        choices=texts,
    )


MMLU = Benchmark(
    name="mmlu",
    title="MMLU, 57 subjects",
    parts=(
        Part("cais/mmlu", "validation", FIND_AND_TUNE, ("all",)),
        Part("cais/mmlu", "dev", FIND_AND_TUNE, ("all",)),
        Part("cais/mmlu", "test", TEST, ("all",)),
    ),
    kind=AnswerKind.CHOICE,
    entry=mmlu_entry,
    prompt=CHOICE,
    decoding=Decoding(max_new_tokens=2048),
    domains=SUBJECTS,
    leaks="Some questions stand more than once, in one subject or in two; those within a split are counted once.",
)


def strategy_qa_entry(row: Row) -> Entry:
    """``qid``, ``question`` and a boolean ``answer``; ``facts`` would give the answer away and is not shown."""
    return Entry(
        question=cell(row, "question").strip(),
        answer=yes_or_no(cell(row, "answer")),
        id=cell(row, "qid"),
    )


STRATEGY_QA = Benchmark(
    name="strategy-qa",
    title="StrategyQA",
    parts=(
        Part("ChilleD/StrategyQA", "train", FIND_AND_TUNE),
        Part("ChilleD/StrategyQA", "test", TEST),
    ),
    kind=AnswerKind.YES_NO,
    entry=strategy_qa_entry,
    prompt=YES_NO,
    decoding=Decoding(max_new_tokens=2048),
    leaks="The repository divides the official training set; the official test set has no public answers.",
)
