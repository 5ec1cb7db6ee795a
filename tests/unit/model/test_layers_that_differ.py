"""Layers of different widths, or without neurons: what names them, what may select them, and where they are kept."""

from dataclasses import replace

import numpy as np
import pytest

from causal_families import VOCABULARY, named_model
from tiny_models import word_tokenizer
from trimtab.analysis.sets import layer_histogram, set_overlaps, top_overlap
from trimtab.errors import InputError, MismatchError, ModelError
from trimtab.export.exporting import export_steering
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel, attach, check_identity, down_weights
from trimtab.neurons import ModelIdentity, NeuronList
from trimtab.ranking import CRITERIA, class_moments, column_norms, labelled, rank
from trimtab.ranking.random_sets import norm_matched, random_like
from trimtab.recording.forward import record_batch
from trimtab.sampling.recorder import Recorder
from trimtab.steering import Steering
from trimtab.store.artifact import load_steering, save_steering
from trimtab.store.import_lists import read_neurons
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Trace
from trimtab.vllm_plugin.refusals import check_sizes

MODEL = ModelIdentity("m", None, "x", "f", n_layers=4, d_model=4, d_ff=12, vocab_size=9, n_experts=3, widths=(5, 12, 0, 12))


def _steering(layer: list[int], index: list[int], model: ModelIdentity = MODEL) -> Steering:
    ones = np.ones(len(layer), np.float32)
    return Steering(np.array(layer), np.array(index), 0 * ones, ones, 1.0, "generated", ALWAYS, model)


@pytest.fixture(scope="module", params=["nemotron_h, mixture", "gemma4_text, double wide", "deepseek_v3"])
def lm(request) -> LanguageModel:
    return LanguageModel.of(named_model(request.param), word_tokenizer(VOCABULARY, pad_token="w0", eos_token="w2"))


def test_an_identity_names_the_widths():
    assert MODEL.n_neurons == 29
    assert [MODEL.width(layer) for layer in range(4)] == [5, 12, 0, 12]
    assert MODEL.width_text == "3 experts x 4 (0 in 1, 5 in 1)"
    assert MODEL.address(0, 4) == "layer   0  index      4", "a dense layer has no experts"
    assert MODEL.address(1, 4) == "layer   1  expert   1  index      0"
    assert MODEL.experts_of(np.array([0, 1, 3]), np.array([4, 4, 11])).tolist() == [-1, 1, 2]
    assert (MODEL.peers(0, 3), MODEL.peers(3, 6)) == ((0, 5), (4, 8))


@pytest.mark.parametrize("widths", [(5, 12, 0), (5, 13, 0, 12), (5, 11, 0, 11), (-1, 12, 0, 12)])
def test_widths_that_do_not_fit_are_refused(widths):
    with pytest.raises(InputError, match="for 4 layers of up to 12 neurons; give one each"):
        replace(MODEL, widths=widths)


@pytest.mark.parametrize(("layer", "index", "there"), [(0, 5, 5), (2, 0, 0)])
def test_a_neuron_that_a_layer_has_not_is_refused(layer, index, there):
    with pytest.raises(InputError, match=f"layer {layer}, index {index}.* is outside m, which has {there} neurons there"):
        _steering([layer], [index])


def test_another_model_of_the_same_rectangle_is_another_model():
    with pytest.raises(MismatchError, match=r"widths: expected \(5, 12, 0, 12\), this model has None"):
        check_identity(MODEL, replace(MODEL, widths=None), force=True)


def test_an_artifact_keeps_the_widths_and_others_have_no_such_key(tmp_path):
    save_steering(_steering([0, 1, 3], [4, 11, 2]), tmp_path / "uneven")
    save_steering(_steering([0, 1, 3], [4, 11, 2], replace(MODEL, widths=None)), tmp_path / "even")
    assert load_steering(tmp_path / "uneven").model == MODEL
    assert "widths" in (tmp_path / "uneven" / "config.json").read_text()
    assert "widths" not in (tmp_path / "even" / "config.json").read_text()


def test_an_engine_that_knows_one_width_refuses():
    with pytest.raises(ModelError, match="layers have different numbers of neurons, 12"):
        check_sizes(replace(MODEL, n_experts=1), object(), "s")


def test_random_neurons_are_neurons():
    steering = _steering([0, 0, 0, 1, 3], [0, 1, 2, 5, 11])
    for seed in range(20):
        drawn = random_like(steering, seed)
        assert (drawn.index[:3] < 5).all()
        assert drawn.layer.tolist() == steering.layer.tolist()
        assert (drawn.index[3] // 4, drawn.index[4] // 4) == (1, 2)


def test_counts_by_layer_go_by_each_layers_width():
    found = layer_histogram(NeuronList(np.array([0, 1, 3]), np.array([4, 11, 2]), "x", MODEL))
    assert [layer.share_of_layer for layer in found.layers] == [1 / 5, 1 / 12, 0, 1 / 12]
    assert found.expected == pytest.approx(3 * 12 / 29)
    assert [(one.layer, one.expert) for one in found.experts] == [(1, 2), (3, 0)]
    one, other = (NeuronList(np.array([0, 0]), np.array(index), "x", MODEL) for index in ([0, 1], [1, 2]))
    (pair,) = set_overlaps({"one": one, "other": other})
    assert (pair.expected, pair.expected_in_layers) == (pytest.approx(4 / 29), pytest.approx(4 / 5))
    magnitude = np.where(np.arange(12) < np.array(MODEL.widths)[:, None], np.arange(12.0), np.nan)
    overlap = top_overlap(NeuronList(np.array([0, 1]), np.array([4, 11]), "x", MODEL), magnitude, (0.2,))
    assert overlap.shared == (2,), "the last of each layer is its largest"
    assert overlap.p[0] == pytest.approx(1 / 5 * 2 / 12)


def test_no_criterion_selects_a_neuron_that_a_layer_has_not(lm):
    rng = np.random.default_rng(0)
    prompts, responses = (rng.integers(3, 90, (24, length)).tolist() for length in (9, 12))
    traces = [Trace(str(n), f"p{n // 4}", n % 4, tuple(prompts[n]), tuple(responses[n]), "", "stop") for n in range(24)]
    rows = [ContrastRow(trace.id, trace.problem_id, bool(n % 2)) for n, trace in enumerate(traces)]
    recorded = record_batch(lm, traces, ("response",), ("sum", "magnitude", "square", "contribution"))["response"]
    parts = labelled([(tuple(trace.id for trace in traces), recorded)], rows)
    moments = class_moments(parts, statistics=("magnitude", "square", "difference", "auroc", "contribution"))
    moments = replace(moments, column_norm=column_norms(down_weights(lm, range(lm.n_layers))))
    widths = np.array(lm.identity.widths)
    assert int(moments.comparable.sum()) <= lm.identity.n_neurons
    for criterion in sorted(set(CRITERIA) - {"activation-ratio", "mathneuro", "sign-flip"}):  # these find none here
        ranking = rank(moments, criterion, 10, lm.identity)
        assert (ranking.index < widths[ranking.layer]).all(), criterion


def test_controls_are_matched_in_layers_of_any_width(lm):
    layers = np.flatnonzero(lm.identity.widths)
    steering = _steering([*layers, *layers], [*([1] * len(layers)), *([2] * len(layers))], lm.identity)
    down = down_weights(lm, layers.tolist())
    control = norm_matched(random_like(steering, 0), steering, down)
    for layer in layers:
        sides = [down[layer][:, one.index[one.layer == layer]] @ one.shift[one.layer == layer] for one in (control, steering)]
        assert np.linalg.norm(sides[0]) == pytest.approx(np.linalg.norm(sides[1]), rel=1e-5)
    with attach(lm, control):
        pass


def test_the_loop_does_not_record_layers_that_differ(lm):
    with pytest.raises(ModelError, match=r"use a dense model|works only where all have"):
        Recorder(lm, ["a"], ("response",), ("sum",))


def test_a_list_of_neurons_is_exported_for_any_family(tmp_path):
    steering = _steering([0, 1, 3], [4, 11, 2])
    export_steering(steering, "json", tmp_path / "list")
    again = read_neurons(tmp_path / "list" / "neurons.json", MODEL)
    assert (again.layer.tolist(), again.index.tolist()) == ([0, 1, 3], [4, 11, 2])
    with pytest.raises(InputError, match="AdaRAS's CSV knows no experts, and m has 3 a layer; export to json"):
        export_steering(steering, "adaras-csv", tmp_path / "csv", drop=["scope"])
    dense = replace(MODEL, n_experts=1, widths=(5, 12, 0, 12))
    export_steering(_steering([0, 3], [4, 11], dense), "adaras-csv", tmp_path / "csv")
    again = read_neurons(tmp_path / "csv" / "neurons.csv", dense)
    assert (again.layer.tolist(), again.index.tolist()) == ([0, 3], [4, 11])
