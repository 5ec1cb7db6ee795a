"""The attention gate's fit: signal found, no leakage, folded exactly, the same from one seed."""

from collections.abc import Sequence

import numpy as np
import pytest

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gate import AttentionGate
from trimtab.gating import attention as module
from trimtab.gating.attention import fit_attention
from trimtab.gating.probe import Calibration
from trimtab.stats.auroc import auroc

D_FF = 12


class Prompts:
    """Tokens of two layers; one token a prompt says in layer 1 whether it fails, the others say nothing."""

    def __init__(self, seed: int, n: int, effect: float) -> None:
        rng = np.random.default_rng(seed)
        self.failed = rng.random(n) < 0.4
        scale = np.exp(np.linspace(-2, 2, 2 * D_FF)).reshape(2, D_FF)
        self.tokens = []
        for failed in self.failed:
            tokens = rng.normal(size=(rng.integers(3, 7), 2, D_FF))
            # the telling token stands out in one feature, so that attention can find it
            telling = rng.integers(len(tokens))
            tokens[telling, 1, 0] += 3.0
            tokens[telling, 1, 1:4] += effect * (1 if failed else -1)
            self.tokens.append((tokens * scale + 3 * scale).astype(np.float32))
        self.means = np.stack([tokens.mean(axis=0) for tokens in self.tokens])

    def read(self, layer: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
        return [tokens[:, layer, index] for tokens in self.tokens]

    def predict(self, gate: AttentionGate) -> np.ndarray:
        return gate.probability(self.read(gate.layer, gate.index))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published rate is for thousands of features; few need more of it to learn in as many epochs."""
    monkeypatch.setattr(module, "LEARNING_RATE", 3e-3)
    monkeypatch.setattr(module, "UNITS", 16)


def test_finds_the_signal_and_is_calibrated_on_new_prompts() -> None:
    find, new = Prompts(0, 250, 1.5), Prompts(1, 600, 1.5)
    gate = fit_attention(find.means, find.failed, find.read, n_features=10)
    p = new.predict(gate)
    assert auroc(new.failed, p) > 0.85
    assert p.mean() == pytest.approx(find.failed.mean(), abs=0.05)
    assert (len(gate.layer), gate.threshold, gate.facts["n_train"]) == (10, None, 250)
    assert {(1, 1), (1, 2), (1, 3)} <= set(zip(gate.layer.tolist(), gate.index.tolist(), strict=True))


def test_shuffled_labels_give_nothing_on_held_out_prompts() -> None:
    held_out, new_areas = [], []
    for seed in range(4):
        find, new = Prompts(seed, 100, 1.5), Prompts(50 + seed, 200, 1.5)
        failed = np.random.default_rng(seed).permutation(find.failed)
        gate = fit_attention(find.means, failed, find.read, n_features=6, seed=seed)
        held_out.append(gate.facts["held_out_auroc"])
        new_areas.append(auroc(np.random.default_rng(seed).permutation(new.failed), new.predict(gate)))
    assert np.mean(held_out) < 0.58
    assert np.mean(new_areas) == pytest.approx(0.5, abs=0.08)


def test_the_folded_gate_is_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    find = Prompts(3, 60, 1.5)
    networks = []

    def remembered(*args):
        networks.append(train(*args))
        return networks[-1]

    train = module._train
    monkeypatch.setattr(module, "_train", remembered)
    monkeypatch.setattr(module, "calibrate", lambda *_: Calibration(2.0, 0.3))
    gate = fit_attention(find.means, find.failed, find.read, n_features=8)
    tokens = [module.torch.from_numpy(rows) for rows in find.read(gate.layer, gate.index)]
    p = find.predict(gate)
    np.testing.assert_allclose(np.log(p / (1 - p)), 2.0 * module._logits(networks[-1].network, tokens) + 0.3, atol=1e-4)


def test_the_same_seed_gives_the_same_gate_and_leaves_the_random_state_alone() -> None:
    find = Prompts(4, 60, 1.5)
    state = module.torch.random.get_rng_state()
    first, again, other = (fit_attention(find.means, find.failed, find.read, seed=seed) for seed in (3, 3, 4))
    assert module.torch.equal(module.torch.random.get_rng_state(), state)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    assert first.settings == again.settings
    assert not np.array_equal(first.hidden, other.hidden)


def test_no_training_sees_what_it_is_judged_on(monkeypatch: pytest.MonkeyPatch) -> None:
    find = Prompts(5, 60, 1.5)
    rounds: list[module._Round] = []
    train = module._train

    def remembered(tokens, failed, one, seed):
        rounds.append(one)
        return train(tokens, failed, one, seed)

    monkeypatch.setattr(module, "_train", remembered)
    fit_attention(find.means, find.failed, find.read)
    assert len(rounds) == 6
    left_out = [set(range(60)) - set(one.train.tolist()) - set(one.validation.tolist()) for one in rounds]
    assert [len(rows) for rows in left_out] == [12, 12, 12, 12, 12, 0]
    assert set.union(*left_out) == set(range(60))
    for one in rounds:
        assert not set(one.train.tolist()) & set(one.validation.tolist())


def test_tokens_are_read_once_for_all_trainings() -> None:
    find = Prompts(6, 60, 1.5)
    asked: list[Sequence[int]] = []

    def read(layer: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
        asked.append((layer * D_FF + index).tolist())
        return find.read(layer, index)

    gate = fit_attention(find.means, find.failed, read, n_features=4)
    (union,) = asked
    assert union == sorted(set(union))
    assert set((gate.layer * D_FF + gate.index).tolist()) <= set(union)


def test_what_cannot_be_fitted() -> None:
    find = Prompts(7, 40, 1.5)
    with pytest.raises(InputError, match="failed must be bool"):
        fit_attention(find.means, find.failed.astype(np.int64), find.read)
    with pytest.raises(NotEnoughDataError, match="got 9 failed and 31 solved"):
        fit_attention(find.means, np.arange(40) < 9, find.read)
