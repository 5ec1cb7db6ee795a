"""Settings of sampling, as read from a configuration."""

from pydantic import BaseModel, ConfigDict, Field


class SamplingSettings(BaseModel):
    """``temperature`` 0 is greedy. ``batch_tokens`` bounds rows x (longest prompt + max_new_tokens) of one batch.

    ``batch_tokens`` is part of the stored plan: another batch size changes the last bits of the logits, so a resumed run keeps
    it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=8, ge=1, description="Traces per problem.")
    temperature: float = Field(default=0.7, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_new_tokens: int = Field(default=1024, ge=1)
    seed: int = 0
    batch_tokens: int = Field(default=65_536, ge=1)

    def greedy(self) -> "SamplingSettings":
        """The same limits, one greedy trace per problem."""
        return self.model_copy(update={"n": 1, "temperature": 0.0, "top_p": 1.0})
