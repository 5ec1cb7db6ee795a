"""Settings of the gate that a run fits."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtab.gate import GateMode, Pooling, PromptScope
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
