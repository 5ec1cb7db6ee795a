"""AdaRAS's CSV: the real columns, addresses by arithmetic, and every line that cannot be used refused by its number."""

import csv
import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity
from trimtab.store.import_lists import read_adaras_csv

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=8, d_ff=16, vocab_size=97)
FULL = """overall_neuron_index,layer,neuron_index_in_layer,weight,abs_weight,useless
37,2,5,4.9946012,4.9946012,predicts_good
0,0,0,-0.5,0.5,predicts_bad
31,1,15,2.5e-3,0.0025,predicts_good
"""


def test_the_columns_of_the_release(written) -> None:
    path = written(FULL)
    neurons = read_adaras_csv(path, MODEL)
    assert neurons.layer.tolist() == [2, 0, 1]
    assert neurons.index.tolist() == [5, 0, 15]
    assert neurons.mean_difference.tolist() == [float(np.float32(4.9946012)), -0.5, float(np.float32(0.0025))]
    assert (neurons.layer.dtype, neurons.mean_difference.dtype) == (np.int64, np.float32)
    assert neurons.model is MODEL
    assert neurons.facts == {
        "imported": {
            "file": "list",
            "format": "adaras-csv",
            "sha256": hashlib.sha256(FULL.encode()).hexdigest(),
            "listed_neuron": "down_proj_input",
            "neurons": 3,
        }
    }


def test_two_columns_are_enough_in_any_order_and_with_a_byte_order_mark(written) -> None:
    path = written("")
    path.write_bytes(b"\xef\xbb\xbfweight,overall_neuron_index\r\n1.5,17\r\n")
    neurons = read_adaras_csv(path, MODEL)
    assert (neurons.layer.tolist(), neurons.index.tolist(), neurons.mean_difference.tolist()) == ([1], [1], [1.5])


@given(st.dictionaries(st.integers(0, 47), st.floats(-1e30, 1e30, allow_nan=False), min_size=1))
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: dict[int, float]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["overall_neuron_index", "weight"])
    writer.writerows(rows.items())
    path = tmp_path_factory.getbasetemp() / "drawn.csv"
    path.write_text(text.getvalue())
    neurons = read_adaras_csv(path, MODEL)
    assert (neurons.layer * 16 + neurons.index).tolist() == list(rows)
    np.testing.assert_array_equal(neurons.mean_difference, np.array(list(rows.values())).astype(np.float32))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("48,0.5", r"line 2: \(layer 3, index 0\) is outside tiny, which has 3 layers of 16"),
        ("-1,0.5", "line 2: overall_neuron_index is '-1'; it must be a whole number"),
        ("1.0,0.5", "line 2: overall_neuron_index is '1.0'; it must be a whole number"),
        ("1_0,0.5", "line 2: overall_neuron_index is '1_0'"),
        ("\u0661,0.5", "line 2: overall_neuron_index is '\u0661'"),
        (f"{'9' * 5000},0.5", "line 2: overall_neuron_index is '99999"),
        ("1,nan", "line 2: weight is 'nan'; it must be a finite number"),
        ("1,1e999", "line 2: weight is inf; it must be finite in float32"),
        ("1,1e39", r"line 2: weight is 1e\+39; it must be finite in float32"),
        ("1,", "line 2: weight is ''"),
        ("1", "line 2: expected 2 fields"),
        ("1,0.5,7", "line 2: expected 2 fields"),
        ('1,"0.5', "after line 1: unexpected end of data"),
        ("1,0.5\n2,0.5\n1,0.25", "line 4: .layer 0, index 1. was listed before, at line 2"),
        ("", "lists no neuron"),
    ],
)
def test_a_bad_line_is_named(written, line: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_adaras_csv(written(f"overall_neuron_index,weight\n{line}\n"), MODEL)


@pytest.mark.parametrize(
    "header",
    ["", "overall_neuron_index", "weight,layer", "overall_neuron_index,weight,weight", "overall_neuron_index,weight,note"],
)
def test_a_header_with_other_columns_is_refused(written, header: str) -> None:
    with pytest.raises(InputError, match="needed: overall_neuron_index, weight; accepted beside them"):
        read_adaras_csv(written(f"{header}\n"), MODEL)


def test_layer_and_index_stand_together(written) -> None:
    with pytest.raises(InputError, match="layer and neuron_index_in_layer together"):
        read_adaras_csv(written("overall_neuron_index,weight,layer\n1,0.5,0\n"), MODEL)


def test_a_list_for_layers_of_another_width_is_refused(written) -> None:
    with pytest.raises(InputError, match=r"line 2: .* whose layers have 20 neurons; they fit layers of 16"):
        read_adaras_csv(written(FULL), replace(MODEL, d_ff=20))


def test_sizes_that_are_not_those_of_the_weights_are_refused(written) -> None:
    with pytest.raises(InputError, match=r"line 2: abs_weight 0.4 is not the size of weight -0.5"):
        read_adaras_csv(written("overall_neuron_index,weight,abs_weight\n1,-0.5,0.4\n"), MODEL)


def test_a_file_that_is_missing_or_no_text_or_huge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none.csv"):
        read_adaras_csv(tmp_path / "none.csv", MODEL)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_adaras_csv(tmp_path / "binary.csv", MODEL)
    with (tmp_path / "huge.csv").open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(InputError, match="has 1,099,511,627,776 bytes"):
        read_adaras_csv(tmp_path / "huge.csv", MODEL)


def test_a_mixture_of_experts_is_refused(written) -> None:
    with pytest.raises(InputError, match="knows no experts, and tiny has 2 a layer"):
        read_adaras_csv(written(FULL), replace(MODEL, n_experts=2))
