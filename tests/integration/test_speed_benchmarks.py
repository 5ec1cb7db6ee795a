"""The speed benchmarks: every way finds the same means, ratios are what they say, and the command writes its file."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks is no part of the package

from benchmarks.speed import alone, compiled, curves, decoding, evaluating, padding, ranking, sharing
from benchmarks.speed.__main__ import MEASUREMENTS, main
from benchmarks.speed.sizes import QUICK
from benchmarks.speed.table import PATHS, ratios_of, table
from benchmarks.speed.timing import Spent, in_turn
from benchmarks.speed.ways.job import Job
from benchmarks.speed.workload import open_random_model, random_traces, save_job, spread
from docs import make_performance
from steering_samples import CoinGrader
from study_samples import with_sections
from tiny_testbed import save_tiny_testbed
from trimtab.model import LanguageModel
from trimtab.study import Study

SHAPE = (2, 128, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("speed")) / "model"


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return open_random_model(folder, *SHAPE)


def test_pairs_take_turns_and_their_ratio_is_the_median() -> None:
    order: list[str] = []
    walls = iter([9.0, 9.0, 2.0, 1.0, 3.0, 1.0, 40.0, 8.0])

    def action(name: str) -> Spent:
        order.append(name)
        return Spent(next(walls), 1.0)

    pairs = in_turn(lambda: action("a"), lambda: action("b"), 3)
    assert order == ["a", "b"] * 4
    assert pairs.ratio == 3.0
    shown = pairs.to_json()
    assert (shown["ratio_min"], shown["ratio_max"], shown["processor_ratio"]) == (2.0, 5.0, 1.0)
    assert shown["seconds_b"] == [1.0, 1.0, 8.0]


@pytest.mark.parametrize("way", ["plain_hooks", "published", "published_without_loop"])
def test_every_way_finds_the_same_means(folder: Path, model: LanguageModel, tmp_path: Path, way: str) -> None:
    traces = random_traces(model, spread(4, 9, 30))
    job = Job.read(save_job(tmp_path / "job.json", traces, batch_tokens=40, loop_tokens=3))
    assert len(job.batches) > 1
    results, extrapolated = {}, {}
    for name in ("record", way):
        module = importlib.import_module(f"benchmarks.speed.ways.{name}")
        (tmp_path / name).mkdir()
        extrapolated[name] = module.prepare(folder, job)(tmp_path / name)
        results[name] = module.load(tmp_path / name, job)
    assert results["record"].shape == (2, 4, SHAPE[0], SHAPE[2])
    np.testing.assert_allclose(results[way], results["record"], rtol=1e-4, atol=1e-6)
    assert extrapolated["record"] == 0.0
    assert (extrapolated[way] > 0) == (way == "published")
    if way.startswith("published"):
        dumped = sum(np.load(path).nbytes for path in (tmp_path / way).glob("trace-*.npy"))
        assert dumped == sum(len(t.forwarded) for t in job.traces) * SHAPE[0] * SHAPE[2] * 4


def test_steered_chains_do_as_many_steps_as_unsteered(tmp_path: Path) -> None:
    endless = open_random_model(tmp_path / "model", *SHAPE, endless=True)
    found = decoding.measure(endless, replace(QUICK, steps=5, batches=(2,), ks=(7,), pairs=2))
    row = found["batch 2, K 7"]
    assert float(str(row["ratio"])) > 0
    assert len(row["ratio_by_repetition"]) == 2  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return open_random_model(Path(tmp_path_factory.mktemp("endless")) / "model", *SHAPE, endless=True)


def test_conditions_are_evaluated_in_both_ways(endless: LanguageModel) -> None:
    row = evaluating.compared(evaluating.random_work(endless, 3, 6), pairs=2)
    assert (row["conditions"], row["responses"], row["shared_tokens"], row["near_ties"]) == (5, 15, 0, 0)
    assert len(row["seconds_a"]) == len(row["seconds_b"]) == 2  # type: ignore[arg-type]
    shared = evaluating.compared(evaluating.few_shot_work(endless, QUICK), pairs=1)
    # the questions have their first words in common too
    assert shared["shared_tokens"] == len((evaluating.SOLVED + "What is 10").encode())


def test_the_plain_way_shares_nothing_and_ours_all(endless: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    work = evaluating.few_shot_work(endless, QUICK)
    seen: list[tuple[bool, bool, int]] = []
    answer = evaluating.TRANSFORMERS.generate

    def watched(model, requests, settings, steering, gate, prefills, drafts):
        seen.append((prefills is not None, drafts is not None, evaluating.prefills.shared_tokens(model, requests, 6)))
        return answer(model, requests, settings, steering, gate, prefills, drafts)

    monkeypatch.setattr(type(evaluating.TRANSFORMERS), "generate", lambda self, *given: watched(*given))
    evaluating.responses(work, plainly=True)
    assert seen == [(False, False, 0)] * 3
    seen.clear()
    evaluating.responses(work, plainly=False)
    assert [one[:2] for one in seen] == [(True, False), (True, True), (True, True)]
    assert all(shared > len(evaluating.SOLVED) for *_, shared in seen)


def test_a_response_that_differs_stops_the_benchmark(endless: LanguageModel) -> None:
    work = evaluating.random_work(endless, 2, 5, conditions=2)
    plain = evaluating.responses(work, plainly=True)
    changed = {**plain, "always": {name: (*ids[:-1], ids[-1] + 1) for name, ids in plain["always"].items()}}
    assert evaluating.near_ties(work, plain, plain) == 0
    with pytest.raises(click.ClickException, match="2 responses of always differ"):
        evaluating.near_ties(work, plain, changed)
    gap = replace(work, exact=False)
    with pytest.raises(click.ClickException, match="of always differs at token 4, where two logits differ by"):
        evaluating.near_ties(gap, plain, changed)


def test_the_demos_conditions_are_evaluated_in_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Study, "grader", property(lambda study: CoinGrader()))  # a random model answers nothing right
    settings = with_sections(
        evaluating.demo_settings(QUICK),
        task={"train": 48, "validation": 36, "test": 6},
        sampling={"n": 4, "max_new_tokens": 12},
        ranking={"k": 10},
        gate={"features": 16},
        tune={"k": [2], "strengths": [10.0], "problems": 8},
    )
    model = save_tiny_testbed(tmp_path / "model")
    with Study(str(model), settings=settings, path=tmp_path / "run") as study:
        work = evaluating.demo_work(study)
        plain, ours = evaluating.responses(work, plainly=True), evaluating.responses(work, plainly=False)
        assert evaluating.near_ties(work, plain, ours) == 0
    names = {each.condition.name for each in work.asked}
    assert {"unsteered", "gated", "always", "negative", "random-4", "random-norm-4"} <= names
    assert {"unsteered-again", "first-token", "running", "running-random"} <= names
    assert {name: len(ids) for name, ids in ours.items()} == dict.fromkeys(names, 6)


def test_exponents_are_the_slopes_between_neighbours() -> None:
    rows = [{"size": 1, "seconds": 2.0, "peak_mb": 5.0}, {"size": 4, "seconds": 8.0, "peak_mb": 5.0}]
    rows += [{"size": 16, "seconds": 128.0, "peak_mb": -0.1}]
    found = curves.with_exponents(rows)
    assert [row["exponent"] for row in found] == [None, 1.0, 2.0]
    assert [row["memory_exponent"] for row in found] == [None, 0.0, None]


def test_curves_of_every_verb_are_measured_and_shown(tmp_path: Path) -> None:
    found = curves.of_verbs(QUICK, tmp_path, alone.measured)
    assert {verb: list(by_dimension) for verb, by_dimension in found.items()} == {
        "record": ["traces", "tokens", "layers", "neurons"],
        "bare forward": ["traces", "tokens", "layers", "neurons"],
        "evaluate": ["problems", "conditions", "tokens"],
        "rank, adaras": ["traces", "neurons"],
        "rank, auroc": ["traces", "neurons"],
    }
    rows = found["evaluate"]["conditions"]
    assert [row["size"] for row in rows] == [2, 4]
    assert isinstance(rows[1]["exponent"], float)
    shown = make_performance.SECTIONS["curves"](found)
    assert "| record: traces | 2, 4 |" in shown
    figure = make_performance.scaling_figure(found)
    drawn: Any = figure.data
    assert len({trace.line.color for trace in drawn}) == len({trace.name for trace in drawn}) == 6
    assert sum(trace.showlegend for trace in drawn) == 6


def test_synthetic_moments_are_ranked(tmp_path: Path) -> None:
    ranking.write_moments(tmp_path / "ranked", 40, QUICK)
    for criterion in ranking.CRITERIA:
        neurons = ranking.ranked(tmp_path / "ranked", 40, criterion, QUICK)
        assert len(neurons) == 50
        assert neurons.facts["n_correct"] == neurons.facts["n_incorrect"] == 20
    features = ranking.gate_features(tmp_path / "ranked", 40)
    assert features.shape[0] == 40
    assert min(ranking.GATE_FEATURES, QUICK.ranked_layers * QUICK.ranked_d_ff) <= features.shape[1]


@pytest.mark.slow
def test_ranking_scales_what_the_disk_has_no_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = replace(QUICK, ranked_traces=64)
    bytes_per_trace = sizes.ranked_layers * sizes.ranked_d_ff * 8
    usage = type("Usage", (), {"free": 2 * 16 * bytes_per_trace})
    monkeypatch.setattr(ranking.shutil, "disk_usage", lambda path: usage)
    rows = ranking.measure(sizes, tmp_path)
    assert set(rows) == {*ranking.CRITERIA, ranking.GATE}
    row = rows["paired-t"]
    assert (row["traces_ranked"], row["bytes_on_disk"]) == (16, 16 * bytes_per_trace)
    assert row["seconds_for_all"] == pytest.approx(4 * float(str(row["seconds"])), abs=0.06)
    assert not list(tmp_path.iterdir())


def test_what_was_not_measured_is_null() -> None:
    details = {"decode": {"batch 1, K 50": {"what": "w", "ratio": 1.25}}, "peers": {"nnsight": None}}
    ratios = ratios_of(details)
    assert set(ratios) == set(PATHS)
    assert {name for name, value in ratios.items() if value is not None} == {"steered_over_unsteered_decode_b1_k50"}
    shown = table({"machine": {"cores": 2}, "versions": {}, "ratios": ratios, "details": details})
    assert "peers, nnsight: left out, not installed or not given" in shown
    assert "decode, batch 1, K 50: ratio 1.25  (w)" in shown


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    arguments = ["--quick", "--only", "sample", "--only", "decode", "--peers", str(tmp_path), "--out", str(out)]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    results = json.loads(out.read_text())
    assert set(results) == {"machine", "versions", "ratios", "details"}
    assert set(results["details"]) == {"decode", "sample"}
    assert results["ratios"]["sample_record_over_sample"] > 0
    assert results["ratios"]["record_over_forward_12x768"] is None
    assert results["versions"]["nnsight"] is None


def test_what_is_left_out_gives_the_same_hidden_states(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "TESTBED_PROBLEMS", 2)
    monkeypatch.setattr(sharing, "TESTBED_ROWS", (11, 9, 4))
    found = sharing.measure(model, QUICK, tmp_path)
    shared = found["shared prefix"]["2 layers of 12x768, 1 x 2 traces of 8 + 20"]
    assert shared["positions_saved"] == round(8 / 56, 4)
    packed = found["packed rows"]["2 layers of 12x768"]
    assert packed["positions_saved"] == round(5 / 40, 4)
    assert all(0 < row["largest_difference"] < sharing.TOLERANCE for way in found.values() for row in way.values())  # type: ignore[intervention]


def test_padding_and_repeated_questions_are_counted(model: LanguageModel, tmp_path: Path) -> None:
    rows = [
        {"id": "p0", "question": "1 + 1?", "gold_answer": "2", "response": "It is 2."},
        {"id": "p0", "question": "1 + 1?", "gold_answer": "2", "response": "two"},
        {"id": "p1", "question": "no", "gold_answer": "2", "response": "no"},
    ]
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = padding.measure(model, file, replace(QUICK, batch_tokens=1000))["words, digits and signs"]
    template = padding._pieces("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<think>\n")
    prompts, responses = (template + 4, template + 4, template + 1), (4, 1, 1)
    lengths = [sum(pair) for pair in zip(prompts, responses, strict=True)]
    assert found["tokens"] == sum(lengths)
    assert found["padding_1000"] == round(1 - sum(lengths) / (3 * max(lengths)), 4)
    assert found["padding_of_problems"] == round(1 - sum(lengths) / (2 * lengths[0] + lengths[2]), 4)
    assert found["repeated_prefix"] == round(prompts[0] / sum(lengths), 4)


@pytest.mark.slow
def test_compiled_steering_is_that_of_eager(tmp_path: Path) -> None:
    row = compiled.measure(replace(QUICK, pairs=1), tmp_path)
    assert row["largest_difference_to_eager"] < row["largest_effect"] / 100  # type: ignore[intervention]


def test_the_page_shows_what_was_measured_and_a_dash_for_what_was_not() -> None:
    pair = {"ratio": 0.9, "ratio_min": 0.8, "ratio_max": 1.0, "processor_ratio": 0.95}
    results = {
        "machine": {"processor": "P", "cores": 2, "threads": 1, "memory_gb": 8.0, "gpu": None, "load_before": [0.1, 0.2, 0.3]},
        "versions": {"torch": "2", "nnsight": None},
        "ratios": {"record_over_forward_12x768": 0.9, "nnsight_over_ours_record": None},
        "details": {
            "sample": {"what": "w", "chains": 4, **pair},
            "peers": {"bare": {**pair, "peak_bytes": 2_000_000, "ours_peak_bytes": None}, "nnsight": None},
        },
    }
    page = make_performance.section(results)
    assert "P, 2 cores, 1 threads, 8.0 GB, load 0.1 before the run; torch 2." in page
    assert "| `record_over_forward_12x768` | 0.9 | >= 0.95 |" in page
    assert "| `nnsight_over_ours_record` | - | - |" in page
    assert "| bare | 0.9 | 0.8 to 1.0 | 2 | - | - |" in page
    assert "| nnsight | - | - | - | - | - |" in page
    assert "Scaling" not in page


@pytest.mark.slow
def test_everything_runs(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    done = CliRunner().invoke(main, ["--quick", "--peers", str(tmp_path), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    results = json.loads(out.read_text())
    assert set(results["details"]) == set(MEASUREMENTS) - {"padding"}
    missing = {name for name, ratio in results["ratios"].items() if ratio is None}
    assert missing == {"transformer_lens_over_ours_record", "nnsight_over_ours_record"}
    bare = results["details"]["peers"]["bare"]
    assert bare["peak_bytes"] is None or bare["peak_bytes"] > 0
    assert all(
        f"**{title}" in make_performance.section(results) for title in ("Scaling", "Ranking", "Forwarding less", "Evaluating")
    )
