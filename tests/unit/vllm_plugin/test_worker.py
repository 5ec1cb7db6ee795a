import pytest
import torch

from layered_stack import D_MODEL, Stack, engine, steering
from trimtab.errors import ModelError
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.step import EngineSteering
from trimtab.vllm_plugin.worker import TOKENS, SelfTest, self_test

SPARE = {side: PluginConfig(side=side, neurons_per_layer=2, features_per_layer=0) for side in ("input", "output")}
DUMMY = torch.ones(TOKENS, D_MODEL)


@pytest.mark.parametrize("side", ["input", "output"])
def test_live_hooks_pass_and_leave_nothing_behind(side: str) -> None:
    stack = Stack()
    made = engine(stack, [steering(0, gains=False)], SPARE[side])
    assert self_test(made, lambda: stack(DUMMY)) == SelfTest((0, 1, 2), True, True)
    assert not made.step.weight.any()
    assert not made.step.rows.any()
    assert set(made.status()["layers"].values()) == {0}
    with torch.no_grad():
        assert torch.equal(stack(DUMMY), Stack()(DUMMY))


def test_a_dummy_forward_does_not_clear_what_the_test_has_set() -> None:
    stack = Stack()
    made = engine(stack, [], SPARE["input"])

    def forward() -> torch.Tensor:
        made.idle()  # as both runners do before dummy tokens
        return stack(DUMMY)

    assert self_test(made, forward).layers == (0, 1, 2)


def test_a_layer_that_is_passed_by_is_named() -> None:
    stack = Stack()
    made = engine(stack, [], SPARE["input"])
    stack.layers[1].mlp.down_proj._forward_pre_hooks.clear()
    with pytest.raises(ModelError, match=r"in layers \[1\] does not change the output.*Fix: delete vLLM's compile cache"):
        self_test(made, lambda: stack(DUMMY))
    assert not made.step.weight.any()


def test_a_forward_that_never_gives_the_same_bits_is_refused() -> None:
    stack = Stack()
    made: EngineSteering = engine(stack, [], SPARE["input"])
    with pytest.raises(ModelError, match="the same tokens give other bits twice"):
        self_test(made, lambda: stack(torch.randn(TOKENS, D_MODEL)))
