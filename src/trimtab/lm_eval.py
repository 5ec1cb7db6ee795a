"""A steered model in lm-evaluation-harness: ``python -m trimtab.lm_eval`` is its command line with one more model, ``trimtab``.

    python -m trimtab.lm_eval --model trimtab --model_args pretrained=Qwen/Qwen3-1.7B,steering=runs/a/steering --tasks gsm8k

The harness has no plugins, so a model is known to it only after the module that registers it was imported; from Python, importing
this one is enough. See docs/lm_eval.md for what each kind of task measures.
"""

# HFLM's decorator hides its type
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedModel

from trimtab.errors import InputError, TrimtabError
from trimtab.model import Attachment, attach, find_ffn, identify
from trimtab.steering import Steering
from trimtab.testbed.models import resolve

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.utils import Collator
except ModuleNotFoundError as cause:
    missing = InputError(
        f"this needs lm-evaluation-harness, and {cause.name} is not installed; run: pip install 'trimtab[lm-eval]'"
    )
    if __name__ == "__main__":
        sys.exit(missing.told())
    raise missing from cause

logger = logging.getLogger(__name__)

Scored = tuple[tuple[str, str], list[int], list[int]]
"""(context, continuation) as text, the ids of the context, the ids of the continuation."""


@register_model("trimtab")
class SteeredLM(HFLM):
    """The harness's own transformers model (``hf``), steered in every request.

    ``generate_until`` generates under the steering: each row's gate reads its prompt. ``loglikelihood`` scores a continuation as
    if the model had generated it after the context, in one forward that knows where the prompt ends. With ``gate=off`` both are
    ``hf``; at strength 0 they equal it bit for bit (with its ``logits_cache=False``, which batches alike).
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel,
        steering: str,
        gate: str | bool = "auto",
        strength: float | None = None,
        force_model: bool = False,
        **options: Any,  # those of HFLM, which the harness passes by name
    ) -> None:
        """Open the model and the steering, and check that they belong together.

        Args:
            pretrained: hub id, folder or ``testbed:NAME``.
            steering: folder or hub id of a steering artifact.
            gate: ``auto`` asks the steering's gate for each prompt, ``on`` steers every one, ``off`` none.
            strength: in place of the steering's own.
            force_model: accept other weights of the same architecture and sizes.
            options: see HFLM: dtype, device, batch_size, max_length, revision and so on.

        Raises:
            MismatchError: the steering was made for another model.
            ModelError: an unknown gate, or a model that cannot be steered (a PEFT model, an encoder-decoder).
        """
        loaded = Steering.from_pretrained(steering)
        self._steering = loaded if strength is None else loaded.with_strength(float(strength))
        # YAML, in which the harness takes its arguments too, reads on and off as true and false
        self._gate: Any = {True: "on", False: "off"}.get(gate, gate) if isinstance(gate, bool) else gate
        self._force = force_model
        super().__init__(pretrained=cast("str", resolve(pretrained) if isinstance(pretrained, str) else pretrained), **options)
        self._layout = find_ffn(self.model)
        self._identity = identify(self.model, str(self.model.name_or_path), None, layout=self._layout)
        self._attach()  # raises for a steering that does not fit, before any request
        self._idle = self._gate == "off" or (self._gate == "auto" and self._steering.gate.kind == "never")
        self._generated = self._steered = 0

    def get_model_info(self) -> dict[str, Any]:
        """Facts about the model for the results file: HFLM's own, the steering, and how many rows its gate let through."""
        steering = {
            "digest": self._steering.digest,
            "scope": self._steering.scope,
            "gate": self._steering.gate.kind if self._gate == "auto" else self._gate,
            "strength": float(self._steering.strength),
            "rows_generated": self._generated,
            "rows_steered": self._steered,
        }
        return {**super().get_model_info(), "steering": steering}

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Perplexity of whole texts, under scope ``all`` or unsteered.

        Raises:
            InputError: any other steering: such a text has no prompt for it to begin after, nor for its gate to read.
        """
        if not self._idle and self._steering.scope != "all":
            raise InputError(
                f"loglikelihood_rolling scores a whole text, and scope {self._steering.scope!r} begins after a prompt; leave "
                "this task out, or use gate=off, or a steering of scope 'all'"
            )
        return super().loglikelihood_rolling(requests, disable_tqdm)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        with self._attach_unless_idle() as attachment:
            tokens = super()._model_generate(context, max_length, stop, **generation_kwargs)
        self._generated += len(context)
        if attachment is not None and attachment.coefficient is not None:
            self._steered += int(attachment.coefficient.count_nonzero())
        return tokens

    def _loglikelihood_tokens(
        self, requests: list[Scored], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """HFLM's own scoring where the steering does not ask where the prompt ends, ours where it does."""
        if self._idle or self._steering.scope == "all":
            with self._attach_unless_idle():
                return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        self._warn_of_single_tokens(requests)
        auto = self.batch_size == "auto" and override_bs is None
        size = override_bs or 0 if self.batch_size == "auto" else int(self.batch_size)
        if auto:
            self.batch_sizes = {}  # what was found for another task's lengths does not hold here
        ordered = Collator(requests, sort_fn=_longest_first)
        answers: list[tuple[float, bool]] = []
        with tqdm(total=len(requests), disable=disable_tqdm or self.rank != 0, desc="Running loglikelihood requests") as bar:
            for chunk in ordered.get_batched(n=size, batch_fn=self._batch_scheduler if auto else None):
                scored = self._score(chunk)
                for (text, _, _), answer in zip(chunk, scored, strict=True):
                    self.cache_hook.add_partial("loglikelihood", text, answer)
                answers += scored
                bar.update(len(scored))
        return ordered.get_original(answers)

    def _score(self, chunk: Sequence[Scored]) -> list[tuple[float, bool]]:
        """``(sum log p, whether greedy)`` of each continuation, from one steered forward over contexts and continuations.

        A row longer than the model's window loses tokens at its left, as in HFLM. Padding is on the right and needs no mask.
        """
        whole = [torch.tensor((context + continuation)[-(self.max_length + 1) :]) for _, context, continuation in chunk]
        prompts = [len(row) - len(continuation) for row, (_, _, continuation) in zip(whole, chunk, strict=True)]
        inputs = pad_sequence([row[:-1] for row in whole], batch_first=True).to(self.device)
        reached = self._steering.scope != "generated" or any(len(continuation) > 1 for _, _, continuation in chunk)
        with self._attach(prompts) if reached else nullcontext():
            scores = log_softmax(self._model_call(inputs), dim=-1, dtype=self.softmax_dtype)
        answers = []
        for row, prompt, score in zip(whole, prompts, scores, strict=True):
            target = row[prompt:].to(score.device)
            predicted = score[prompt - 1 : len(row) - 1]
            total = predicted.gather(1, target.unsqueeze(1)).squeeze(1).sum()
            answers.append((float(total), bool((predicted.argmax(-1) == target).all())))
        return answers

    def _warn_of_single_tokens(self, requests: Sequence[Scored]) -> None:
        single = sum(len(continuation) == 1 for _, _, continuation in requests)
        if single and self._steering.scope == "generated":
            logger.warning(
                "%d of %d continuations are one token long: it is predicted from the prompt, which scope 'generated' does not "
                "steer, so their scores are those of the unsteered model",
                single,
                len(requests),
            )

    def _attach(self, prompt_lengths: Sequence[int] | None = None) -> Attachment:
        return attach(
            self.model,
            self._steering,
            gate=self._gate,
            prompt_lengths=prompt_lengths,
            force_model=self._force,
            layout=self._layout,
            identity=self._identity,
        )

    def _attach_unless_idle(self) -> AbstractContextManager[Attachment | None]:
        return nullcontext() if self._idle else self._attach()


def _longest_first(request: Scored) -> tuple[int, tuple[int, ...]]:
    """HFLM's order, so that batches are the same: the longest first, which fails first if memory is short."""
    tokens = (*request[1], *request[2])
    return -len(tokens), tokens


def main() -> None:
    """The harness's command line, which now knows ``trimtab``; an error of the user's is one message."""
    try:
        cli_evaluate()
    except TrimtabError as error:
        sys.exit(error.told())


if __name__ == "__main__":
    main()
