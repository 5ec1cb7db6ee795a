"""Attach, detach, nest, raise, generate, compile, copy, in any order on one model: its logits come back bit for bit."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from steering_oracle import logistic_gate, prompts, steering_for, whole_logits
from tiny_models import tiny
from trimtab.errors import ModelError
from trimtab.gate import NEVER
from trimtab.model import attach

LENGTHS = (5, 3)
STEERINGS = {
    "strong": {},
    "all": {"scope": "all"},
    "gated": {"gate": logistic_gate(threshold=0.4)},
    "zero": {"strength": 0.0},
    "closed": {"gate": NEVER},
}
"""The last two leave every logit as it is."""


class Steered(RuleBasedStateMachine):
    """One model, what is attached to it, and what it says when nothing is; ``said`` is the first answer under each steering."""

    def __init__(self) -> None:
        super().__init__()
        self.active: tuple[str, object] | None = None
        self.said: dict[str | None, torch.Tensor] = {}

    @initialize(family=st.sampled_from(["qwen3", "gpt2"]))
    def open(self, family: str) -> None:
        self.model = tiny(family)
        self.ids, self.mask = prompts(LENGTHS)
        self.weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.own = dict(self.model.__dict__)
        self.bare = whole_logits(self.model, self.ids, self.mask)

    @precondition(lambda self: self.active is None)
    @rule(name=st.sampled_from(sorted(STEERINGS)))
    def enter(self, name: str) -> None:
        block = attach(self.model, steering_for(self.model, **STEERINGS[name]))
        block.__enter__()
        self.active = name, block

    @precondition(lambda self: self.active is not None)
    @rule(error=st.sampled_from([None, ValueError("of the block"), KeyboardInterrupt()]))
    def leave(self, error: BaseException | None) -> None:
        _, block = self.active
        block.__exit__(None if error is None else type(error), error, None)
        self.active = None

    @precondition(lambda self: self.active is not None)
    @rule()
    def detach_and_leave(self) -> None:
        _, block = self.active
        block.detach()
        block.detach()
        block.__exit__(None, None, None)
        self.active = None

    @precondition(lambda self: self.active is not None)
    @rule(name=st.sampled_from(sorted(STEERINGS)))
    def nest(self, name: str) -> None:
        with pytest.raises(ModelError, match="steered already"), attach(self.model, steering_for(self.model, **STEERINGS[name])):
            raise AssertionError("a second block was entered")

    @rule()
    def raise_within_a_forward(self) -> None:
        with pytest.raises(IndexError):
            self.model(input_ids=torch.full((1, 3), 10**6))

    @rule()
    def generate(self) -> None:
        name = None if self.active is None else self.active[0]
        said = self.model.generate(input_ids=self.ids, attention_mask=self.mask, max_new_tokens=4, do_sample=False)
        assert torch.equal(said, self.said.setdefault(name, said))
        if name in ("zero", "closed") and None in self.said:
            assert torch.equal(said, self.said[None])

    @precondition(lambda self: self.active is not None)
    @rule()
    def refuse(self) -> None:
        with pytest.raises(ModelError, match="cannot be steered"):
            self.model.generate(input_ids=self.ids, prompt_lookup_num_tokens=2, max_new_tokens=2)

    @rule()
    def copy(self) -> None:
        if self.active is not None:
            with pytest.raises(ModelError, match="a copy of a steered model would keep its hooks"):
                copy.deepcopy(self.model)
            return
        other = copy.deepcopy(self.model)
        with attach(other, steering_for(other, scope="all")):
            steered = whole_logits(other, self.ids, self.mask)
        assert not torch.equal(steered, self.bare)
        assert torch.equal(whole_logits(other, self.ids, self.mask), self.bare)

    @invariant()
    def nothing_is_left_behind(self) -> None:
        if not hasattr(self, "model") or self.active is not None:
            return
        assert torch.equal(whole_logits(self.model, self.ids, self.mask), self.bare)
        assert all(torch.equal(value, self.weights[name]) for name, value in self.model.state_dict().items())
        assert self.model.__dict__.keys() == self.own.keys()
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in self.model.modules())

    def teardown(self) -> None:
        if self.active is not None:
            self.active[1].detach()


class Compiled(Steered):
    """``compiled`` is the model as each backend compiled it, at any time: it runs again after hooks have come and gone."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled: dict[str, Callable[..., object]] = {}

    @rule(backend=st.sampled_from(["eager", "aot_eager"]))
    def compile(self, backend: str) -> None:
        compiled = self.compiled.setdefault(backend, torch.compile(self.model, backend=backend))
        self.own["_is_torch_compile"] = True  # torch leaves it there
        cached = self.active is not None  # without a cache a scope would have to know where the prompts end
        expected = whole_logits(self.model, self.ids, self.mask, use_cache=True) if cached else self.bare
        assert torch.equal(whole_logits(compiled, self.ids, self.mask, use_cache=cached), expected)
        if cached and self.active[0] == "all":
            assert not torch.equal(expected, self.bare)

    def teardown(self) -> None:
        super().teardown()
        torch.compiler.reset()


def _case(machine: type[Steered], examples: int, steps: int) -> type:
    machine = type(machine.__name__, (machine,), {})
    machine.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    return machine.TestCase


TestSteered = _case(Steered, 5, 10)
TestSteeredForLong = pytest.mark.slow(_case(Steered, 100, 40))
TestCompiledForLong = pytest.mark.slow(_case(Compiled, 20, 30))


def test_a_compiled_model_is_steered_and_comes_back_bit_for_bit() -> None:
    """One walk through that machine, which spends seconds on every graph."""
    model = Compiled()
    model.open("gpt2")
    model.compile("eager")
    for leave in (model.detach_and_leave, lambda: model.leave(ValueError("of the block"))):
        model.enter("all")
        model.compile("eager")
        model.nest("strong")
        leave()
        model.compile("eager")
        model.nothing_is_left_behind()
    model.copy()
    model.teardown()
