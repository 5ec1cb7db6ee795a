"""Settings of a task, as read from a configuration."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from trimtab.traces import AnswerKind, Split

LOCAL = "local:"
TESTBED = "testbed"
MOST_PROBLEMS = 10**9
GYM = "gym:"
FIELDS = ("question", "answer", "id", "choices", "domain", "difficulty", "split", "tests")


class TaskSettings(BaseModel):
    """Which problems a run reads, and how many.

    Args:
        source: ``testbed``, the name of a benchmark, ``gym:NAME`` for a family of reasoning-gym, or ``local:PATH`` for a .jsonl
            or .parquet file with questions and answers.
        train: at most this many problems of the split; 0 leaves it out. ``validation`` and ``test`` likewise.
        seed: of the problems of the testbed and of reasoning-gym, and of which problems of a benchmark are taken when there are
            more than asked for.
        answer: the kind of answer of a ``local:`` file. A benchmark declares its own.
        fields: the column of a ``local:`` file for each of our names that has another one there.
        data: a benchmark's own rows on this machine: a .jsonl or .parquet file, or a folder with a copy of its repository.
        revision: branch, tag or commit of the benchmark's repository.
        digest: refuse problems with another digest than this one, which ``trimtab tasks check`` prints.
        parameters: of a ``gym:`` family, as reasoning-gym names them.
        domains: only problems of these domains; empty for all.
        drop_leaks: leave out test problems that stand, exactly or nearly, in train or validation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = TESTBED
    train: int = Field(default=500, ge=0, le=MOST_PROBLEMS)
    validation: int = Field(default=300, ge=0, le=MOST_PROBLEMS)
    test: int = Field(default=1000, ge=0, le=MOST_PROBLEMS)
    seed: int = 0
    answer: AnswerKind = AnswerKind.EXACT
    fields: dict[str, str] = Field(default_factory=dict)
    data: str = ""
    revision: str = ""
    digest: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    domains: tuple[str, ...] = ()
    drop_leaks: bool = False

    @model_validator(mode="after")
    def _fit_the_source(self) -> Self:
        """Refuse what the source would not read."""
        local = self.source.startswith(LOCAL)
        if not local and (self.fields or self.answer is not AnswerKind.EXACT):
            raise ValueError(f"answer and fields describe a {LOCAL} file, {self.source!r} declares its own; remove them")
        if self.answer is AnswerKind.GYM:
            raise ValueError(f"answer 'gym' is that of {GYM} sources, whose verifier has to know how a problem was generated")
        if self.parameters and not self.source.startswith(GYM):
            raise ValueError(f"parameters describe a {GYM} family, {self.source!r} is none; remove them")
        if (local or self.source == TESTBED or self.source.startswith(GYM)) and (self.data or self.revision):
            raise ValueError(f"data and revision belong to a benchmark, {self.source!r} is none; remove them")
        if self.data and self.revision:
            raise ValueError("data is a copy on this machine and has no revision; give one of the two, or pin data with digest")
        unknown = sorted(set(self.fields) - set(FIELDS))
        if unknown:
            raise ValueError(f"fields names {', '.join(unknown)}; accepted: {', '.join(FIELDS)}")
        return self

    def count(self, split: Split) -> int:
        """How many problems of this split are wanted at most."""
        return {Split.TRAIN: self.train, Split.VALIDATION: self.validation, Split.TEST: self.test}[split]
