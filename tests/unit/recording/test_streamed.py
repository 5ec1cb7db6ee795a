"""Moments written beside sampled traces: what is chosen is read, and a broken run goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tiny_testbed import open_tiny_testbed, settings, some_problems, tree_bytes
from trimtab.errors import ConfigError, InputError
from trimtab.model import LanguageModel
from trimtab.recording import RecordingSettings, StreamedParts, choose_traces, record_traces
from trimtab.sampling import sample_traces
from trimtab.sampling.recorder import Recorder
from trimtab.store import read_arrow
from trimtab.traces import Trace

SAMPLED = settings(n=3, temperature=1.0, batch_tokens=200)
SETTINGS = RecordingSettings(scopes=("response", "all"), moments=("sum", "magnitude"))
PROBLEMS = some_problems(8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return open_tiny_testbed(Path(tmp_path_factory.mktemp("tiny")) / "model")


@pytest.fixture(scope="module")
def sampled(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trace]]:
    """A folder with ``traces`` and ``moments``, and the traces."""
    folder = Path(tmp_path_factory.mktemp("sampled"))
    return folder, _sample(model, folder)


def _sample(model: LanguageModel, folder: Path, recording: RecordingSettings = SETTINGS) -> list[Trace]:
    moments = StreamedParts(model, recording, folder / "moments")
    return sample_traces(model, PROBLEMS, SAMPLED, folder / "traces", moments=moments)


def test_a_trace_is_recorded_as_it_is_afterwards(model: LanguageModel, sampled: tuple[Path, list[Trace]], tmp_path: Path) -> None:
    folder, traces = sampled
    chosen = [trace for trace in traces if len(trace.response_ids) > 1][::4]
    recording, after = choose_traces(folder / "moments", chosen), record_traces(model, chosen, SETTINGS, tmp_path)
    for scope in SETTINGS.scopes:
        ours, theirs = (
            {trace_id: moments.take([row]) for ids, moments in r.stream(scope) for row, trace_id in enumerate(ids)}
            for r in (recording, after)
        )
        assert ours.keys() == {trace.id for trace in traces} > theirs.keys() == {trace.id for trace in chosen}
        for trace in chosen:
            assert ours[trace.id].count.tolist() == theirs[trace.id].count.tolist()
            np.testing.assert_allclose(ours[trace.id].sum, theirs[trace.id].sum, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(ours[trace.id].magnitude, theirs[trace.id].magnitude, rtol=1e-4, atol=1e-5)


def test_the_index_names_the_rows(sampled: tuple[Path, list[Trace]]) -> None:
    folder, traces = sampled
    for n in (7, 2):
        chosen = [trace for trace in traces if len(trace.response_ids) > 1][:n]
        recording = choose_traces(folder / "moments", chosen)
        index = read_arrow(folder / "moments" / "index.parquet").to_pylist()
        assert {(row["trace_id"], row["problem_id"]) for row in index} == {(trace.id, trace.problem_id) for trace in chosen}
        everything = list(recording.stream("all"))
        assert all(everything[row["part"]][0][row["row"]] == row["trace_id"] for row in index)


def test_what_cannot_be_chosen(sampled: tuple[Path, list[Trace]]) -> None:
    folder, traces = sampled
    with pytest.raises(InputError, match=r"1 traces are not in .*, first 'other/0'; record them from their text"):
        choose_traces(folder / "moments", [replace(traces[0], id="other/0")])
    short = next(trace for trace in traces if len(trace.response_ids) == 1)
    with pytest.raises(InputError, match=f"trace {short.id} has no token in the scope 'response'; its response is too short"):
        choose_traces(folder / "moments", [short])


def test_resume_ends_with_the_same_bytes(
    model: LanguageModel, sampled: tuple[Path, list[Trace]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def interrupted(recorder: Recorder) -> object:
        calls.append(recorder)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return moments(recorder)

    moments = Recorder.moments
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "moments", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _sample(model, tmp_path)
    _sample(model, tmp_path)
    parts = sorted((tmp_path / "moments").glob("part-*"))
    parts[0].unlink()  # the traces of a part without its moments are sampled again
    _sample(model, tmp_path)
    (sampled[0] / "moments" / "index.parquet").unlink(missing_ok=True)
    assert tree_bytes(tmp_path) == tree_bytes(sampled[0])
    assert len(parts) > 3


def test_other_settings_do_not_resume(model: LanguageModel, sampled: tuple[Path, list[Trace]]) -> None:
    with pytest.raises(ConfigError, match=r"holds the parts of another plan: recording"):
        _sample(model, sampled[0], RecordingSettings(scopes=("response",)))
