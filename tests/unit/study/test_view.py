"""The view of a study: which tokens are recorded, their pieces, forks, and what its server refuses."""

import http.client
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trimtab.cli.view import view_command
from trimtab.errors import InputError, ModelError, TrimtabError
from trimtab.evaluation.rows import UNSTEERED
from trimtab.report.view_page import render_view
from trimtab.study import Evaluation, Study
from trimtab.study.fork import fork
from trimtab.study.view_data import build_bare_view, build_view, token_pieces
from trimtab.study.view_server import LONGEST_BODY, ModelDesk, ViewServer
from trimtab.testbed.tokenizer import build_tokenizer

WORDS = build_tokenizer()


def byte_level() -> PreTrainedTokenizerFast:
    """Every byte is a token, so that most characters take several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)} | {"<end>": 256}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


BYTES = byte_level()


@pytest.fixture
def judged(study: Study) -> Evaluation:
    return study.evaluate()


@given(st.lists(st.integers(0, len(WORDS) - 1), max_size=40))
def test_pieces_of_words_are_the_text(ids: list[int]) -> None:
    text = str(WORDS.decode(ids, skip_special_tokens=True))
    pieces = token_pieces(WORDS, ids, text)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


@given(st.text(max_size=30), st.integers(0, 3))
def test_pieces_of_bytes_are_the_text_and_a_character_is_never_cut(text: str, ends: int) -> None:
    ids = BYTES.encode(text, add_special_tokens=False) + [256] * ends
    text = str(BYTES.decode(ids, skip_special_tokens=True))
    pieces = token_pieces(BYTES, ids, text)
    assert "".join(pieces) == text
    assert list(pieces[len(ids) - ends :]) == [""] * ends or not text


@given(st.lists(st.integers(0, 256), min_size=1, max_size=60))
def test_pieces_of_any_bytes_are_the_text(ids: list[int]) -> None:
    text = str(BYTES.decode(ids, skip_special_tokens=True))
    assert "".join(token_pieces(BYTES, ids, text)) == text


def test_every_response_of_the_pair_is_recorded_and_none_twice(judged: Evaluation) -> None:
    assert judged.tokens is not None
    rows, hits = judged.tokens.record.read()
    base, steered = judged.outcomes[UNSTEERED], judged.outcomes[judged.condition]
    assert len(judged.tokens.responses) == len(base) + len(steered)
    asleep = [o for o in steered if not o.fired]
    assert 0 < len(asleep) < len(steered)
    assert len(rows) == len(base) + len(steered) - len(asleep)
    for name, response in judged.tokens.responses.items():
        if name in rows:
            assert len(rows[name].logprob) == len(response.trace.response_ids)
            assert np.isfinite(rows[name].total).all()
            greedy = rows[name].alternative[:, 0]
            assert (greedy == np.array(response.trace.response_ids)).mean() > 0.99  # all but near ties
    assert len(hits) == len(judged.steering)


def test_the_record_is_read_and_not_made_again(study: Study, judged: Evaluation, finished: Path) -> None:
    before = sorted(str(path) for path in (finished / "tokens").rglob("*"))
    assert Study.from_toml(finished).evaluate().tokens is not None
    assert sorted(str(path) for path in (finished / "tokens").rglob("*")) == before
    assert study.keys["tokens"].startswith("tokens/")


def test_a_run_whose_tokens_were_not_kept_still_opens(finished: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.study.tokens.read_response_ids", lambda folder: None)
    evaluation = study.evaluate()
    assert evaluation.tokens is None
    view = build_view(study, evaluation, study.tuned())
    assert not view.tokens
    assert "were not kept" in view.notes[0]
    assert evaluation.view().html.startswith("<!doctype html>")


def test_a_run_without_its_model_shows_texts_scores_and_the_same_verdict(study: Study, judged: Evaluation) -> None:
    view = build_bare_view(study)
    assert view.sentence == judged.verdict.sentence
    assert not view.neurons
    assert set(view.outcomes) == set(judged.outcomes)


def test_the_view_shows_what_the_record_and_the_rankings_say(study: Study, judged: Evaluation) -> None:
    view = build_view(study, judged, study.tuned())
    assert view.contributions
    assert len(view.neurons) == len(judged.steering)
    criterion = study.tuned().best.criterion
    assert [neuron.ranks[criterion] for neuron in view.neurons] == list(range(1, len(view.neurons) + 1))
    for neuron in view.neurons:
        assert neuron.histogram is not None
        assert sum(neuron.histogram.correct) == sum(row.correct for row in study.contrast())
        for hit in neuron.hits:
            texts = [o.response for o in judged.outcomes[UNSTEERED] if o.problem_id == hit.problem]
            assert any(hit.before + hit.token + hit.after in text for text in texts)
    for (condition, problem, seed, sample), found in view.tokens.items():
        outcome = next(o for o in judged.outcomes[condition] if (o.problem_id, o.seed, o.sample) == (problem, seed, sample))
        assert "".join(found.pieces) == outcome.response


def test_the_chips_of_the_page_count_what_the_verdict_counts(study: Study, judged: Evaluation) -> None:
    page = render_view(build_view(study, judged, study.tuned()))
    meta = json.loads(page.split('id="meta">')[1].split("</script>")[0])
    base, steered = ([bool(flag & 1) for flag in meta["flags"][name]] for name in (UNSTEERED, judged.condition))
    found = Counter(zip(base, steered, strict=True))
    row = judged.rows[judged.condition]
    assert (found[False, True], found[True, False]) == (row.fixed, row.broken)
    assert found.total() == row.n
    for name in judged.outcomes:  # and of every other condition, the random sets among them
        shown = [flag for flag in meta["flags"][name] if not flag & 64]
        assert sum(flag & 1 for flag in shown) == sum(outcome.correct for outcome in judged.outcomes[name])


def test_one_question_is_answered_at_a_time(study: Study, judged: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.study.view_server.SECONDS", 0.05)
    desk, asked = ModelDesk(study, judged), threading.Event()
    release = threading.Event()

    def slow(question: object) -> dict[str, object]:
        asked.set()
        release.wait(20)
        return {}

    monkeypatch.setattr(desk, "_neurons", slow)
    first = threading.Thread(target=desk.answer, args=("neurons", {}))
    first.start()
    assert asked.wait(20)
    with pytest.raises(InputError, match="at work on another request"):
        desk.answer("neurons", {})
    release.set()
    first.join()
    assert desk.answer("neurons", {}) == {}


def test_a_page_in_a_notebook_is_a_frame_without_our_origin(judged: Evaluation, tmp_path: Path) -> None:
    page = judged.view()
    frame = page._repr_html_()
    assert 'sandbox="allow-scripts allow-modals"' in frame
    assert "<script" not in frame
    assert page.save(tmp_path / "view.html").read_text() == page.html


def test_going_on_as_before_gives_the_same_response(study: Study, judged: Evaluation) -> None:
    assert judged.tokens is not None
    limit = study.settings.sampling.max_new_tokens
    steered = [r for r in judged.tokens.responses.values() if r.strength][:4]
    bare = [r for r in judged.tokens.responses.values() if not r.strength][:4]
    for response in [*steered, *bare]:
        for at in {0, len(response.trace.response_ids) // 2, len(response.trace.response_ids) - 1}:
            found = fork(study.model, response, judged.tokens.steering, at, strength=response.strength, max_new_tokens=limit)
            assert found.kept + found.ids == response.trace.response_ids
            assert len(found.p) == len(found.ids)


def test_a_fork_begins_with_the_token_that_is_forced_and_acts_at_its_own_strength(study: Study, judged: Evaluation) -> None:
    assert judged.tokens is not None
    response = next(r for r in judged.tokens.responses.values() if r.strength and len(r.trace.response_ids) > 4)
    forced = (response.trace.response_ids[2] + 1) % study.model.identity.vocab_size
    found = fork(study.model, response, judged.tokens.steering, 2, strength=0.0, forced=forced, max_new_tokens=12)
    assert found.kept == response.trace.response_ids[:2]
    assert found.ids[0] == forced
    with pytest.raises(InputError, match="there is none at 99"):
        fork(study.model, response, judged.tokens.steering, 99, strength=0.0, max_new_tokens=12)


@pytest.fixture
def server(study: Study, judged: Evaluation) -> Iterator[ViewServer]:
    with ViewServer(("127.0.0.1", 0), "<!doctype html>a page", ModelDesk(study, judged)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: ViewServer, path: str = "", body: object = None, **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of one request; ``path`` is below the token unless it begins with a slash."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    target = path if path.startswith("/") else f"/{server.token}/{path}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is None:
        connection.request("GET", target, headers=named)
    else:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", target, data, {"Content-Type": "application/json", **named})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, dict(response.getheaders()), text


def test_the_server_shows_the_page_to_who_knows_the_token(server: ViewServer) -> None:
    status, headers, text = ask(server)
    assert (status, text) == (200, "<!doctype html>a page")
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert len(server.token) >= 32


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 404),
        ("/wrong-token/", {}, 404),
        ("/wrong-token/api/fork", {}, 404),
        ("elsewhere", {}, 404),
        ("../../etc/passwd", {}, 404),
        ("", {"Host": "evil.example"}, 421),
        ("", {"Host": "127.0.0.1"}, 421),
        ("", {"Origin": "http://evil.example"}, 403),
        ("", {"Origin": "null"}, 403),
    ],
)
def test_the_server_refuses_everything_else(server: ViewServer, path: str, headers: dict[str, str], status: int) -> None:
    assert ask(server, path, **headers)[0] == status


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"a=1", {"Content_Type": "application/x-www-form-urlencoded"}, 415),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"x" * (LONGEST_BODY + 1), {}, 413),
        ({"side": "base", "problem": "none", "seed": 0, "sample": 0, "token": 0, "strength": 0}, {}, 400),
        ({"problem": "none"}, {"Host": "evil.example"}, 421),
    ],
)
def test_a_bad_question_is_refused(server: ViewServer, body: object, headers: dict[str, str], status: int) -> None:
    assert ask(server, "api/fork", body, **headers)[0] == status
    assert ask(server, "api/none", {})[0] == 400


def test_the_server_goes_on_from_a_token_and_tells_of_every_neuron(server: ViewServer, judged: Evaluation) -> None:
    assert judged.tokens is not None
    name = next(name for name, response in judged.tokens.responses.items() if response.strength)
    _, seed, problem, sample = name.split("/")
    where = {"problem": problem, "seed": int(seed), "sample": int(sample), "side": "steered"}
    status, _, text = ask(server, "api/fork", {**where, "token": 1, "strength": 0.5, "alternative": 2})
    answer = json.loads(text)
    assert status == 200
    assert answer["before"] + "".join(answer["pieces"]) == answer["text"]
    status, _, text = ask(server, "api/neurons", where)
    rows, _ = judged.tokens.record.read()
    np.testing.assert_allclose(np.sum(json.loads(text)["contributions"], 1), rows[name].total, rtol=1e-2, atol=5e-3)
    for wrong in ({"token": "1"}, {"token": 1, "strength": "x"}, {"token": 1, "strength": 1, "alternative": 9}):
        assert ask(server, "api/fork", {**where, "strength": 1.0, **wrong})[0] == 400


def test_the_command_writes_the_page_and_prints_where(finished: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(view_command, [str(finished), "--out", str(tmp_path / "v.html"), "--json"])
    assert json.loads(result.stdout) == {"view": str(tmp_path / "v.html")}
    assert (tmp_path / "v.html").read_text() == (finished / "view.html").read_text()
    assert 'href="view.html"' in (finished / "report.html").read_text()


@pytest.mark.parametrize(("missing", "code"), [("run.toml", "settings/no-run"), ("evaluate", "settings/not-evaluated")])
def test_the_command_computes_nothing_for_a_folder_without_a_finished_evaluation(
    finished: Path, tmp_path: Path, missing: str, code: str
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    gone = folder / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    before = sorted(str(path) for path in folder.rglob("*"))
    result = CliRunner().invoke(view_command, [str(folder)])
    assert isinstance(result.exception, TrimtabError)
    assert result.exception.code == code
    assert sorted(str(path) for path in folder.rglob("*")) == before


def test_a_folder_of_an_older_evaluation_says_so(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("tune", "steering"))
    result = CliRunner().invoke(view_command, [str(folder)])
    assert "older `trimtab evaluate --out`" in str(result.exception)


def test_the_command_shows_texts_where_the_model_cannot_be_opened(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(study: Study) -> None:
        raise ModelError("no such model")

    monkeypatch.setattr(Study, "model", property(missing))
    result = CliRunner().invoke(view_command, [str(finished), "--out", str(tmp_path / "v.html")])
    assert result.exit_code == 0, result.output
    assert "texts and scores alone: no such model" in result.stderr
    assert "The model could not be opened" in (tmp_path / "v.html").read_text()
