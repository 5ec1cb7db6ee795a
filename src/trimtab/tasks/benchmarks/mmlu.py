"""MMLU: four choices in 57 subjects, which are the domains."""

from trimtab.errors import InputError
from trimtab.tasks.benchmark import FIND_AND_TUNE, TEST, Benchmark, Decoding, Entry, Part, cell
from trimtab.tasks.benchmarks.wording import CHOICE
from trimtab.tasks.choices import lettered
from trimtab.tasks.files import Row
from trimtab.traces import AnswerKind

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


def entry(row: Row) -> Entry:
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
    entry=entry,
    prompt=CHOICE,
    decoding=Decoding(max_new_tokens=2048),
    domains=SUBJECTS,
    leaks="Some questions stand more than once, in one subject or in two; those within a split are counted once.",
)
