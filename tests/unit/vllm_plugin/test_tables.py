import numpy as np
import pytest
import torch

from layered_stack import D_FF, D_MODEL, LAYERS, Stack, by_hand, engine, linear, steering
from trimtab.errors import ModelError
from trimtab.gate import RunningGate
from trimtab.steering import Steering
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.step import EngineSteering
from trimtab.vllm_plugin.tables import Columns, Rank

ROWS = [0, 1, 2, 0, 1, 2]
WEIGHT = [0.0, 1.0, -0.5, 3.0, 0.3, 2.0]


def set_rows(made: EngineSteering, rows: list[int], weight: list[float]) -> None:
    made.step.rows[: len(rows)] = torch.tensor(rows)
    made.step.weight[: len(rows)] = torch.tensor(weight)


def run(stack: Stack, made: EngineSteering, h: torch.Tensor, rows: list[int], weight: list[float]) -> torch.Tensor:
    set_rows(made, rows, weight)
    with torch.no_grad():
        return stack(h)


def tokens(n: int = 6) -> torch.Tensor:
    return torch.randn(n, D_MODEL, generator=torch.Generator().manual_seed(1))


def test_each_token_gets_its_own_steering_and_weight() -> None:
    loaded = [steering(0), steering(1, k=9)]
    h, bare = tokens(), Stack()
    with torch.no_grad():
        plain = bare(h)
        expected = by_hand(bare, h, [None if not row else loaded[row - 1] for row in ROWS], WEIGHT)
    stack = Stack()
    steered = run(stack, engine(stack, loaded), h, ROWS, WEIGHT)
    torch.testing.assert_close(steered, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(steered[[0, 3]], plain[[0, 3]])  # row 0, whatever its weight
    assert (steered[[1, 2, 4, 5]] != plain[[1, 2, 4, 5]]).any(1).all()


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_hold_their_own_neurons_and_add_up(count: int) -> None:
    loaded = [steering(0, k=12), steering(1, k=7)]
    h, bare = tokens(), Stack()
    a = [[block.neurons(h) for block in Stack(i, count).layers] for i in range(count)]
    written = [torch.zeros(6, D_MODEL) for _ in range(LAYERS)]
    for i in range(count):
        stack = Stack(i, count)
        made = engine(stack, loaded, rank=(i, count))
        set_rows(made, ROWS, WEIGHT)
        for layer, block in enumerate(stack.layers):
            with torch.no_grad():
                written[layer] += block.mlp.down_proj(a[i][layer])[0]
    whole = Stack()
    made = engine(whole, loaded)
    set_rows(made, ROWS, WEIGHT)
    for layer, block in enumerate(whole.layers):
        with torch.no_grad():
            expected = block.mlp.down_proj(bare.layers[layer].neurons(h))[0]
        torch.testing.assert_close(written[layer], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("runs", [False, True])
def test_a_gates_score_is_the_sum_over_layers_and_ranks(runs: bool, count: int) -> None:
    """Of a gate of the question, and of a running gate that is joined with one and reads some of the same neurons."""
    gate, own = linear(3), linear(4)
    if runs:
        own_gate = RunningGate(gate.layer, gate.index, gate.weight, threshold=0.5, question=own)
        loaded, reader = [steering(0, scope="generated", gate=own_gate)], 10 + 1  # after 8 slots and 2 rows
    else:
        loaded, reader = [steering(0, scope="generated", gate=gate)], 1
    h = tokens()
    bare = Stack()
    features, state = [], h
    for layer, block in enumerate(bare.layers):
        a = block.neurons(state)
        features += [(place, a[:, gate.index[place]]) for place in np.flatnonzero(gate.layer == layer)]
        with torch.no_grad():
            state = block(state)
    expected = sum(values * float(gate.weight[place]) for place, values in features)
    score = torch.zeros(6)
    for i in range(count):
        stack = Stack(i, count)
        made = engine(stack, loaded, rank=(i, count))
        set_rows(made, [1] * 6, [0.0] * 6)
        made.step.readers[:6] = reader
        state = h
        for layer, block in enumerate(bare.layers):
            with torch.no_grad():
                stack.layers[layer].mlp.down_proj(stack.layers[layer].neurons(state))
                state = block(state)
        score += made.step.score[:6]
    torch.testing.assert_close(score, torch.as_tensor(expected).detach(), rtol=1e-4, atol=1e-4)


def test_the_output_side_writes_what_the_input_side_does() -> None:
    loaded = [steering(0, gains=False), steering(1, k=9, gains=False)]
    h, sides = tokens(), []
    for side in ("input", "output"):
        stack = Stack()
        config = PluginConfig(side=side, neurons_per_layer=0, features_per_layer=0)
        sides.append(run(stack, engine(stack, loaded, config), h, ROWS, WEIGHT))
    torch.testing.assert_close(sides[0], sides[1], rtol=1e-4, atol=1e-4)


def test_a_quantised_projection_writes_through_its_own_kernel() -> None:
    class Eight(torch.nn.Module):
        """Keeps its weights as integers."""

        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.scale = weight.abs().max() / 127
            self.weight = torch.nn.Parameter((weight / self.scale).round().to(torch.int8), requires_grad=False)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
            return x @ (self.weight.float() * self.scale).T, None

    stack, plain = Stack(), Stack()
    for block, whole in zip(stack.layers, plain.layers, strict=True):
        block.mlp.down_proj = Eight(block.mlp.down_proj.weight.detach())
        quantised = block.mlp.down_proj
        whole.mlp.down_proj.weight.data = quantised.weight.float() * quantised.scale
    own = steering(0, gains=False)
    made = engine(stack, [own], PluginConfig(side="output", neurons_per_layer=0, features_per_layer=0))
    with torch.no_grad():
        expected = by_hand(plain, tokens(), [own] * 6, [1.0] * 6)
    torch.testing.assert_close(run(stack, made, tokens(), [1] * 6, [1.0] * 6), expected, rtol=1e-4, atol=1e-4)


def test_slots_are_filled_emptied_and_filled_again_while_others_stay() -> None:
    stack, h = Stack(), tokens()
    first, second, third = steering(0), steering(1, k=9), steering(2, k=8)
    made = engine(stack, [first, second], PluginConfig(max_steerings=3, neurons_per_layer=6, features_per_layer=0))
    with torch.no_grad():
        expected = {n: by_hand(Stack(), h, [own] * 6, [1.0] * 6) for n, own in enumerate((first, second, third))}
    for slot, name in ((1, 0), (2, 1)):
        torch.testing.assert_close(run(stack, made, h, [slot] * 6, [1.0] * 6), expected[name], rtol=1e-4, atol=1e-4)
    made.tables.load(3, third, "third")
    made.tables.unload(1)
    made.tables.load(2, second, "second")  # in its own place
    for _ in range(5):  # columns of the emptied slot are used again and never run out
        made.tables.load(1, third, "third")
        made.tables.load(1, first, "first")
    for slot, name in ((1, 0), (2, 1), (3, 2)):
        torch.testing.assert_close(run(stack, made, h, [slot] * 6, [1.0] * 6), expected[name], rtol=1e-4, atol=1e-4)
    made.tables.unload(2)
    with torch.no_grad():
        assert torch.equal(run(stack, made, h, [2] * 6, [1.0] * 6), Stack()(h))
    assert set(made.tables.digests) == {1, 3}


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_steering_that_does_not_fit_changes_nothing(side: str) -> None:
    stack, h = Stack(), tokens()
    only_first = Steering(
        np.zeros(2, np.int64),
        np.arange(2),
        *(np.float32([0, 0]), np.float32([1, 2])),
        1.0,
        "all",
        *(steering(0).gate, steering(0).model),
    )
    made = engine(stack, [only_first], PluginConfig(side=side, neurons_per_layer=0, features_per_layer=0))
    before = run(stack, made, h, [1] * 6, [1.0] * 6)
    with pytest.raises(
        ModelError, match=r"does not fit layer \d, .* lacks \d free columns.*Fix: start the engine with it, or with"
    ):
        made.tables.load(1, steering(1, k=9, gains=False), "wide")
    assert torch.equal(run(stack, made, h, [1] * 6, [1.0] * 6), before)
    assert made.tables.digests == {1: only_first.digest}


def test_layers_without_room_have_no_hook() -> None:
    stack = Stack()
    only_first = Steering(
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
        np.float32([0]),
        np.float32([1]),
        1.0,
        "all",
        steering(0).gate,
        steering(0).model,
    )
    made = engine(stack, [only_first])
    assert set(made.tables.layers) == {0}
    assert [len(block.mlp.down_proj._forward_pre_hooks) for block in stack.layers] == [1, 0, 0]
    spare = Stack()
    engine(spare, [], PluginConfig(neurons_per_layer=3, features_per_layer=0))
    assert all(len(block.mlp.down_proj._forward_pre_hooks) == 1 for block in spare.layers)


def test_columns_are_shared_and_never_more_than_there_are() -> None:
    columns = Columns(4)
    assert columns.take([7, 3], 1) == [0, 1]
    assert columns.take([3, 9], 2) == [1, 2]
    assert columns.missing([1, 2], 3) == 1
    assert columns.missing([1, 2], 1) == 0  # 7 would be free
    with pytest.raises(ModelError, match="do not fit 4 columns"):
        columns.take([1, 2], 3)
    columns.give_back(1)
    assert columns.take([5], 3) == [0]
    assert columns.column == {3: 1, 9: 2, 5: 0}


def test_every_neuron_is_of_exactly_one_rank() -> None:
    layers, neurons = np.repeat(np.arange(2), D_FF), np.tile(np.arange(D_FF), 2)
    for layer in range(2):
        found = [rank.own(layer, layers, neurons) for rank in (Rank(i, 3, D_FF) for i in range(3))]
        assert sorted(np.concatenate([place for place, _ in found]).tolist()) == [layer * D_FF + i for i in range(D_FF)]
        for i, (place, columns) in enumerate(found):
            np.testing.assert_array_equal(neurons[place], columns + i * D_FF // 3)
