"""A stack of FFN blocks over tokens ``[token, d_model]``, as the plugin finds them in an engine, and steerings of it."""

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.gate import ALWAYS, AnyGate, Gate
from trimtab.neurons import ModelIdentity
from trimtab.steering import PositionScope, Steering
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.hooks import StepBuffers, down_projections
from trimtab.vllm_plugin.recording import Recording
from trimtab.vllm_plugin.requests import NOBODY, RequestStates
from trimtab.vllm_plugin.step import EngineSteering
from trimtab.vllm_plugin.tables import Rank, SlotTables, plan_room

LAYERS, D_MODEL, D_FF = 3, 8, 12
IDENTITY = ModelIdentity("stack", None, "stack", "f", LAYERS, D_MODEL, D_FF, 10)
CPU = torch.device("cpu")


class Down(nn.Module):
    """A down projection that returns a pair, as vLLM's linear layers do."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x @ self.weight.T, None


class Block(nn.Module):
    """``h + W_down relu(W_up h)``."""

    def __init__(self, up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.up, self.mlp = nn.Parameter(up), nn.Module()
        self.mlp.down_proj = Down(down)

    def neurons(self, h: Tensor) -> Tensor:
        return torch.relu(h @ self.up.T)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.mlp.down_proj(self.neurons(h))[0]


class Stack(nn.Module):
    """The blocks."""

    def __init__(self, index: int = 0, count: int = 1) -> None:
        """The share of one of several ranks, whose blocks write partial sums."""
        super().__init__()
        made = torch.Generator().manual_seed(0)
        width = D_FF // count
        own = slice(index * width, (index + 1) * width)
        weights = [
            (torch.randn(D_FF, D_MODEL, generator=made), torch.randn(D_MODEL, D_FF, generator=made)) for _ in range(LAYERS)
        ]
        self.layers = nn.ModuleList(Block(up[own], down[:, own].contiguous()) for up, down in weights)

    def forward(self, h: Tensor) -> Tensor:
        for block in self.layers:
            h = block(h)
        return h


def steering(seed: int, k: int = 5, gains: bool = True, scope: PositionScope = "all", gate: AnyGate = ALWAYS) -> Steering:
    """Random neurons of all layers."""
    rng = np.random.default_rng(seed)
    flat = rng.choice(LAYERS * D_FF, k, replace=False)
    gain, shift = (rng.normal(size=k).astype(np.float32) for _ in range(2))
    return Steering(flat // D_FF, flat % D_FF, gain * gains, shift, 1.0, scope, gate, IDENTITY)


def linear(seed: int, threshold: float = 0.5, proportional: bool = False) -> Gate:
    """Random features of all layers."""
    rng = np.random.default_rng(seed)
    flat = rng.choice(LAYERS * D_FF, 9, replace=False)
    mode = "proportional" if proportional else "hard"
    weight = rng.normal(size=9).astype(np.float32) * 0.2
    return Gate("logistic", mode, flat // D_FF, flat % D_FF, weight, 0.1, threshold)


def engine(
    stack: Stack,
    loaded: list[Steering],
    config: PluginConfig | None = None,
    rank: tuple[int, int] = (0, 1),
    tokens: int = 32,
    monitor: bool = False,
) -> EngineSteering:
    """Steering around a stack, with these in slots 1, 2 ..."""
    config = config or PluginConfig(neurons_per_layer=0, features_per_layer=0)
    own, step = Rank(*rank, D_FF), StepBuffers.make(tokens, CPU)
    down = down_projections(stack, LAYERS, config.side)
    recording = None if config.record is None else Recording(config.record, LAYERS, 4, own.width, CPU)
    tables = SlotTables(config, down, plan_room(loaded, config, own, LAYERS), step, own, torch.float32)
    tables.install(D_MODEL, recording)
    for slot, each in enumerate(loaded, 1):
        tables.load(slot, each, f"s{slot}")
    return EngineSteering(tables, step, RequestStates(4, CPU), recording, monitor)


def step(made: EngineSteering, stack: Stack, batch: dict[str, tuple[int, Tensor]]) -> Tensor:
    """One forward of requests that were begun: each its first position and its tokens."""
    states = made.requests.states
    req_indices = [states[name].req_index if name in states else NOBODY for name in batch]
    start, count = (np.array(each) for each in zip(*((at, len(h)) for at, h in batch.values()), strict=True))
    made.before_forward(req_indices, start, count)
    with torch.no_grad():
        output = stack(torch.cat([h for _, h in batch.values()]))
    made.after_forward()
    return output


def by_hand(stack: Stack, h: Tensor, chosen: list[Steering | None], weight: list[float]) -> Tensor:
    """The stack with every neuron of every token changed by the formula, one at a time."""
    rows = []
    for token, own, factor in zip(h, chosen, weight, strict=True):
        state = token
        for layer, block in enumerate(stack.layers):
            a = block.neurons(state)
            changed = a.clone()
            if own is not None:
                for at, index, gain, shift in zip(own.layer, own.index, own.gain, own.shift, strict=True):
                    if at == layer:
                        changed[index] = a[index] + factor * (float(gain) * a[index] + float(shift))
            state = state + changed @ block.mlp.down_proj.weight.T
        rows.append(state)
    return torch.stack(rows)
