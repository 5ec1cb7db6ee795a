"""AdaRAS's predictor: attention pooling over the prompt's tokens and a small network, calibrated like the other gates."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from trimtab.errors import InputError
from trimtab.gate import AttentionGate
from trimtab.gating.features import FeatureRows, RunBlocks, as_rows, choose_by_folds
from trimtab.gating.probe import FOLDS, N_FEATURES, Rows, calibrate, check_classes, fold_numbers
from trimtab.stats.auroc import auroc

# of the released code of AdaRAS; the batch is ours
UNITS, DROPOUT = 256, 0.3
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 1e-5
EPOCHS, PATIENCE = 100, 10
BATCH = 32

ReadTokens: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64]], Sequence[NDArray[np.float32]]]
"""From layer and index, int64 ``[feature]``, to the activations of every problem's prompt, float32 ``[token, feature]`` each."""


class _Round(NamedTuple):
    """One training: the problems to fit on, those that stop it, and the features, as flat addresses."""

    train: Rows
    validation: Rows
    address: NDArray[np.int64]


class _Trained(NamedTuple):
    """A network, the epoch it was taken from and the AUROC that chose it."""

    network: "_Network"
    epoch: int
    validation_auroc: float


def fit_attention(
    means: NDArray[np.float32] | FeatureRows,
    failed: NDArray[np.bool_],
    read: ReadTokens,
    *,
    n_features: int = N_FEATURES,
    seed: int = 0,
    at_once: int = 1,
    run_blocks: RunBlocks = map,
) -> AttentionGate:
    """Fit an attention gate on the `train` split.

    The features with the highest F scores of their mean over the prompt are standardised over all tokens. The network is trained
    with Adam on binary cross-entropy, with a weight on failures that balances the classes; of its epochs the one with the best
    AUROC on validation problems is kept. The problems are divided into five folds: the gate is trained on four of them and
    stopped by the fifth. Five more networks, each trained on three folds and stopped by a fourth, give every problem a logit
    from a network that never saw it; Platt scaling of these calibrates the gate. Features are chosen anew in each training. The
    same seed gives the same gate on one machine.

    The gate has no threshold yet: choose it on the `validation` split, ``gate.with_threshold(youden(failed, p))``.

    Args:
        means: float32 ``[problem, layer, d_ff]``, mean activations over the prompt's tokens, in memory or on disk.
        failed: bool ``[problem]``, the unsteered model's own greedy response was incorrect.
        read: gives the tokens' activations of the neurons that were chosen; called once.
        n_features: how many features to keep; all that vary when there are fewer.
        seed: of the folds, the first weights, the batches and the dropout.
        at_once, run_blocks: how features are chosen by blocks of layers, as for :func:`trimtab.gating.features.choose_by_folds`.

    Raises:
        InputError: shapes differ, labels are not bool, or a feature is not finite.
        NotEnoughDataError: fewer than 10 failed or 10 solved problems, or no feature differs between them.
    """
    if failed.dtype != np.bool_ or failed.shape != means.shape[:1]:
        raise InputError(f"failed must be bool [problem] for {means.shape[0]} problems, got {failed.dtype} {list(failed.shape)}")
    check_classes(failed)
    rows = as_rows(means)
    # the fold after the one that is left out stops the training; the first one where none is
    stops = [(k + 1) % FOLDS for k in range(FOLDS)]
    kept = [[i for i in range(FOLDS) if i not in (k, stops[k])] for k in range(FOLDS)]
    numbers = fold_numbers(failed, seed)
    addresses = choose_by_folds(
        rows, failed, n_features, numbers, [*kept, range(1, FOLDS)], at_once=at_once, run_blocks=run_blocks
    )
    *rounds, final = [
        _Round(np.flatnonzero(np.isin(numbers, own)), np.flatnonzero(numbers == stop), address)
        for own, stop, address in zip([*kept, range(1, FOLDS)], [*stops, 0], addresses, strict=True)
    ]
    union = np.unique(np.concatenate([one.address for one in (*rounds, final)]))
    d_ff = rows.shape[2]
    tokens = [torch.from_numpy(np.asarray(values, np.float32)) for values in read(union // d_ff, union % d_ff)]

    def trained(one: _Round) -> tuple[_Trained, list[Tensor]]:
        columns = torch.from_numpy(np.searchsorted(union, one.address))
        own = tokens if len(columns) == len(union) else [rows[:, columns] for rows in tokens]
        return _train(own, failed, one, seed), own

    logit = np.empty(len(failed))
    for k, one in enumerate(rounds):
        left_out, own = trained(one)
        held_out = np.flatnonzero(numbers == k)
        logit[held_out] = _logits(left_out.network, [own[row] for row in held_out])
    calibration = calibrate(logit, failed)
    best, _ = trained(final)
    facts: dict[str, object] = {
        "n_train": len(failed),
        "n_train_failed": int(failed.sum()),
        "n_features": len(final.address),
        "epoch": best.epoch,
        "validation_auroc": best.validation_auroc,
        "held_out_auroc": auroc(failed, logit),
        "calibration_slope": calibration.slope,
        "seed": seed,
    }
    return _as_gate(best, final.address, d_ff, calibration.slope, calibration.intercept, facts)


class _Network(nn.Module):
    """``[batch, token, feature]`` and which tokens are real, to logits ``[batch]``."""

    def __init__(self, centre: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.centre, self.spread = centre, spread
        self.query = nn.Linear(len(centre), 1)
        self.hidden = nn.Linear(len(centre), UNITS)
        self.dropout = nn.Dropout(DROPOUT)
        self.output = nn.Linear(UNITS, 1)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        # standardised in the maps rather than at every token, which is the same: attention weights sum to 1
        query = self.query.weight[0] / self.spread
        score = torch.tanh(tokens @ query + (self.query.bias - query @ self.centre)).masked_fill(~real, -torch.inf)
        pooled = torch.bmm(torch.softmax(score, dim=1).unsqueeze(1), tokens).squeeze(1)
        hidden = torch.relu(self.hidden((pooled - self.centre) / self.spread))
        return self.output(self.dropout(hidden)).squeeze(-1)


def _train(tokens: Sequence[Tensor], failed: NDArray[np.bool_], one: _Round, seed: int) -> _Trained:
    labels = torch.from_numpy(failed).float()
    n_failed = int(failed[one.train].sum())
    weight = torch.tensor((len(one.train) - n_failed) / n_failed)
    validation = [tokens[row] for row in one.validation]
    best, best_epoch, best_area = {}, 0, -1.0
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        network = _Network(*_scale([tokens[row] for row in one.train]))
        optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for epoch in range(1, EPOCHS + 1):
            network.train()
            for batch in torch.from_numpy(one.train)[torch.randperm(len(one.train))].split(BATCH):
                logit = network(*_padded([tokens[row] for row in batch.tolist()]))
                loss = nn.functional.binary_cross_entropy_with_logits(logit, labels[batch], pos_weight=weight)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            area = auroc(failed[one.validation], _logits(network, validation))
            if area > best_area:
                best, best_epoch, best_area = {name: value.clone() for name, value in network.state_dict().items()}, epoch, area
            elif epoch - best_epoch >= PATIENCE:
                break
    network.load_state_dict(best)
    return _Trained(network, best_epoch, best_area)


def _logits(network: _Network, tokens: Sequence[Tensor]) -> NDArray[np.float64]:
    """``[problem]``, without dropout."""
    network.eval()
    with torch.no_grad():
        parts = [network(*_padded(tokens[start : start + BATCH])) for start in range(0, len(tokens), BATCH)]
    return torch.cat(parts).double().numpy()


def _scale(tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature over all tokens."""
    n = sum(len(rows) for rows in tokens)
    centre = torch.stack([rows.double().sum(0) for rows in tokens]).sum(0) / n
    spread = (torch.stack([(rows - centre).square().sum(0) for rows in tokens]).sum(0) / n).sqrt()
    return centre.float(), spread.float()


def _padded(tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """``[batch, token, feature]``, and which tokens are real."""
    lengths = torch.tensor([len(rows) for rows in tokens])
    return pad_sequence(list(tokens), batch_first=True), torch.arange(int(lengths.max())) < lengths.unsqueeze(1)


def _as_gate(
    trained: _Trained, address: NDArray[np.int64], d_ff: int, slope: float, intercept: float, facts: dict[str, object]
) -> AttentionGate:
    """The network on raw activations: standardisation folded into its first maps, calibration into its last."""
    network = trained.network
    centre, spread = network.centre.double().numpy(), network.spread.double().numpy()
    values = {name: value.detach().double().numpy() for name, value in network.named_parameters()}
    query = (values["query.weight"][0] / spread).astype(np.float32)
    hidden = (values["hidden.weight"] / spread).astype(np.float32)
    return AttentionGate(
        layer=address // d_ff,
        index=address % d_ff,
        query=query,
        hidden=hidden,
        # biases take the rounded weights, so that rounding does not shift an average token
        offset=(values["hidden.bias"] - hidden.astype(np.float64) @ centre).astype(np.float32),
        output=(slope * values["output.weight"][0]).astype(np.float32),
        query_bias=float(values["query.bias"][0] - query.astype(np.float64) @ centre),
        bias=float(slope * values["output.bias"][0] + intercept),
        facts=facts,
    )
