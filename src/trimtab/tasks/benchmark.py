"""The declaration of a benchmark: its rows, how one becomes a problem, its prompt, and its usual sampling."""

from collections.abc import Callable
from dataclasses import dataclass, field

from trimtab.tasks.files import Row, text_field
from trimtab.tasks.prompts import CHAT, Prompt
from trimtab.traces import AnswerKind, Split

FIND_AND_TUNE = (Split.TRAIN, Split.VALIDATION)
TEST = (Split.TEST,)
ALL = (Split.TRAIN, Split.VALIDATION, Split.TEST)


@dataclass(frozen=True, slots=True)
class Entry:
    """The content of one row. An empty ``id`` is filled with the part's name and the row's number."""

    question: str
    answer: str
    id: str = ""
    domain: str = ""
    difficulty: int = 0
    choices: tuple[str, ...] = ()
    tests: str = ""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the benchmark is sampled where a run says nothing else; temperature 0 is greedy."""

    n: int = 8
    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int = 32_768


def cell(row: Row, *names: str) -> str:
    """The first of these fields that the row has, as text. Raises InputError that lists what the row has."""
    return text_field(row, names, "the row")


def keep(row: Row) -> str:  # noqa: ARG001 - one signature for every filter
    """Leaves out nothing."""
    return ""


@dataclass(frozen=True, slots=True)
class Part:
    """One official split of one repository on the hub, and which of our splits its problems go to.

    Args:
        hub_id: the repository.
        split: its official split.
        to: our splits; several are filled by a hash of the question.
        configs: configurations to read, all of them; empty for a repository that has one.
        leaves_out: the reason why a row is not used, for example because it stands in another part; empty to use it.
        revision: branch, tag or commit. ``main`` moves, so the commit that it stood for is recorded with the problems.
    """

    hub_id: str
    split: str
    to: tuple[Split, ...]
    configs: tuple[str, ...] = ()
    leaves_out: Callable[[Row], str] = keep
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark, declared.

    Args:
        name: as in ``task.source``.
        title: for people.
        parts: where the rows come from.
        kind: of its answers.
        entry: reads one row; raises InputError for a row that is none.
        prompt: how the question is put, in the papers' wording.
        decoding: how it is usually sampled.
        domains: every domain that a row can have; empty where a benchmark has none.
        leaks: what is known to stand in two places.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    kind: AnswerKind
    entry: Callable[[Row], Entry]
    prompt: Prompt = CHAT
    decoding: Decoding = field(default_factory=Decoding)
    domains: tuple[str, ...] = ()
    leaks: str = ""

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """Its repositories, each once."""
        return tuple(dict.fromkeys(part.hub_id for part in self.parts))

    def leaves_out(self, row: Row) -> str:
        """The reason not to use a row of a file that belongs to no part: only a filter that every part has applies to it."""
        filters = {part.leaves_out for part in self.parts}
        return filters.pop()(row) if len(filters) == 1 else ""


BOXED = "{question}\nPlease reason step by step, and put your final answer within \\boxed{}."

MATH_THINKING = Prompt(template=BOXED, thinking="on")
"""AdaRAS: thinking mode, with the request for a box that Qwen's authors recommend."""

MATH = Prompt(template=BOXED)
"""The same for models without a thinking mode."""

CODE = Prompt(
    template="Solve this task in Python. Put the whole program, with its imports, into one ```python block.\n\n{question}",
    thinking="on",
)
CHOICE = Prompt(template='{question}\nThink step by step, then end with "The answer is X", where X is the letter of your choice.')
YES_NO = Prompt(template='{question}\nThink step by step, then end with "The answer is yes" or "The answer is no".')
