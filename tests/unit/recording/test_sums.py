"""Sums block by block against loops over rows and tokens in float64."""

import numpy as np
import pytest
import torch

from trimtab.moments import MOMENTS
from trimtab.recording import forward as module
from trimtab.recording.forward import DenseSums

WIDTH, SEQ = 12, 40
SPANS = [[(0, 40), (3, 40)], [(0, 31), (5, 31)], [(0, 7), (6, 7)], [(0, 1), (0, 1)], [(0, 38), (2, 9)]]
POWERS = {"sum": lambda a: a, "magnitude": np.abs, "square": np.square}


def _activation(dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(SPANS), SEQ, WIDTH, generator=generator).to(dtype)


def _recorded(activation: torch.Tensor, moments: tuple[str, ...]) -> list[dict[str, np.ndarray]]:
    """By scope."""
    summed = DenseSums(SPANS, moments, 1, torch.device("cpu"))
    summed.hook(0)(torch.nn.Identity(), (activation,))
    return [summed.collect(scope) for scope in range(2)]


@pytest.mark.parametrize("moments", [MOMENTS, ("square",), ("magnitude", "sum"), ("square", "sum")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 3, 50, 90, 1000])
def test_equal_the_naive_loop_however_they_are_cut(
    monkeypatch: pytest.MonkeyPatch, tokens: int, dtype: torch.dtype, moments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(module, "_CPU_BLOCK_BYTES", 4 * WIDTH * tokens)
    activation = _activation(dtype)
    found, values = _recorded(activation, moments), activation.double().numpy()
    for row, scopes in enumerate(SPANS):
        for scope, (start, stop) in enumerate(scopes):
            assert set(found[scope]) == set(moments)
            for name in moments:
                expected = sum(POWERS[name](values[row, t]) for t in range(start, stop))
                assert found[scope][name].dtype == np.float32
                np.testing.assert_allclose(found[scope][name][row, 0], expected, rtol=2e-6, atol=2e-6)


def test_half_precision_is_summed_in_float32() -> None:
    ones = torch.ones(1, 1000, WIDTH, dtype=torch.bfloat16)  # a sum in bfloat16 stays at 256, whose neighbour is 258
    summed = DenseSums([[(0, 1000)]], ("sum",), 1, torch.device("cpu"))
    summed.hook(0)(torch.nn.Identity(), (ones,))
    assert (summed.collect(0)["sum"] == 1000).all()


def test_what_the_model_computes_with_is_left_alone() -> None:
    activation = _activation(torch.float32)
    before = activation.clone()
    _recorded(activation, MOMENTS)
    assert torch.equal(activation, before)


def test_rows_and_tokens_may_share_an_axis() -> None:
    activation = _activation(torch.float32)
    for three, two in zip(_recorded(activation, MOMENTS), _recorded(activation.flatten(0, 1), MOMENTS), strict=True):
        for name in MOMENTS:
            np.testing.assert_array_equal(three[name], two[name])


def test_nothing_outside_all_scopes_is_read() -> None:
    activation = _activation(torch.float32)
    activation[:, 20:] = torch.nan
    spans = [[(4, 9)], [(2, 20)], [(0, 7)], [(6, 7)], [(8, 18)]]
    summed = DenseSums(spans, ("sum",), 1, torch.device("cpu"))
    summed.hook(0)(torch.nn.Identity(), (activation,))
    assert np.isfinite(summed.collect(0)["sum"]).all()


def test_blocks_cover_every_span_once_and_hold_their_bound() -> None:
    for tokens in (1, 4, 45, 100, 10_000):
        seen = np.zeros((len(SPANS), SEQ), int)
        for rows, columns in DenseSums(SPANS, ("sum",), 1, torch.device("cpu"))._blocks(tokens):
            assert (rows.stop - rows.start) * (columns.stop - columns.start) <= tokens
            seen[rows, columns] += 1
        assert seen.max() == 1
        assert all(seen[row, start:stop].all() for row, scopes in enumerate(SPANS) for start, stop in scopes)


def test_sums_of_all_layers_are_one_allocation() -> None:
    """Of 64 layers on eight traces, recording took 559 MB where the bare forward takes 62, since the heap could not shrink."""
    summed = DenseSums(SPANS, ("sum", "magnitude"), 3, torch.device("cpu"))
    for layer in range(3):
        summed.see(layer, torch.full((len(SPANS), SEQ, WIDTH), float(layer)))
    kept = [total for total in summed._layers if total is not None]
    assert len({total.untyped_storage().data_ptr() for total in kept}) == 1
    assert [total.max().item() > 0 for total in kept] == [False, True, True]


def test_a_layer_that_runs_again_is_summed_up_anew() -> None:
    first, second = _activation(torch.float32), -2 * _activation(torch.float32)
    expected = _recorded(second, MOMENTS)
    summed = DenseSums(SPANS, MOMENTS, 1, torch.device("cpu"))
    for activation in (first, second):
        summed.hook(0)(torch.nn.Identity(), (activation,))
    for scope, sums in enumerate(expected):
        for name, array in summed.collect(scope).items():
            np.testing.assert_array_equal(array, sums[name])
