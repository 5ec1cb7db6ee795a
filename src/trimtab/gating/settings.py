"""Settings of the gate that a run fits."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtab.gate import GateMode, Join, Pooling, PromptScope, RunningAction
from trimtab.gating.probe import N_FEATURES, Penalty


class GateSettings(BaseModel):
    """A gate is fitted on greedy scores of the train split; its threshold is Youden's on the validation split.

    Args:
        kind: ``logistic``, ``attention`` (AdaRAS's predictor) or ``always``, which is not fitted.
        pooling: a logistic gate reads the ``last`` prompt token or the ``mean`` over the prompt.
        penalty: of its weights.
        mode: ``hard`` steers with the whole strength where it fires, ``proportional`` with more the surer the failure is.
        features: how many neurons it may read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["logistic", "attention", "always"] = "logistic"
    pooling: Pooling = "last"
    penalty: Penalty = "l2"
    mode: GateMode = "hard"
    features: int = Field(default=N_FEATURES, ge=1)

    @property
    def fitted(self) -> bool:
        """Whether there is a gate to fit."""
        return self.kind != "always"

    @property
    def scope(self) -> PromptScope:
        """The prompt tokens that it reads."""
        return "prompt" if self.kind == "attention" or self.pooling == "mean" else "last-prompt"

    @property
    def recorded(self) -> tuple[PromptScope, ...]:
        """What is recorded of each prompt; the last token in any case, since experiments fit gates of their own on it."""
        if not self.fitted:
            return ()
        return ("last-prompt",) if self.scope == "last-prompt" else ("last-prompt", "prompt")

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> Self:
        if self.kind == "attention" and (self.pooling, self.penalty) != ("last", "l2"):
            raise ValueError(
                "gate.pooling and gate.penalty are of a logistic gate; an attention gate has its own, leave them out"
            )
        return self


class RunningGateSettings(BaseModel):
    """A running gate is fitted on the contrast's responses; its thresholds are chosen on greedy validation responses.

    Args:
        features: how many neurons it may read, those with the largest paired t.
        memory: 0 averages all response tokens so far, 1 reads the last alone, N is an exponential mean over about N.
        action: ``open`` steers from where p(fail) reaches the threshold, ``close`` until it falls below, ``scale`` in proportion.
        hysteresis: 0 has one threshold: open and close change once. Above 0 the second lies this share of the way from the first
            to 0, for ``close`` to 1.
        after: it decides from this response token on.
        join: how it is joined with the question's gate where both are asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: int = Field(default=256, ge=1)
    memory: int = Field(default=0, ge=0)
    action: RunningAction = "open"
    hysteresis: float = Field(default=0.0, ge=0.0, lt=1.0)
    after: int = Field(default=4, ge=1)
    join: Join = "and"
