import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from trimtab.directions import Directions
from trimtab.errors import InputError, StoreError
from trimtab.gate import ALWAYS
from trimtab.steering import Steering
from trimtab.store.artifact import load_steering, save_steering

FILES = {"config.json", "neurons.safetensors", "gate.safetensors", "README.md"}


def assert_equal(actual: Steering, expected: Steering) -> None:
    for name in ("layer", "index", "gain", "shift"):
        a, e = getattr(actual, name), getattr(expected, name)
        assert (a.dtype, a.tobytes()) == (e.dtype, e.tobytes()), name
    for name in ("layer", "index", "weight"):
        a, e = getattr(actual.gate, name), getattr(expected.gate, name)
        assert (a.dtype, a.tobytes()) == (e.dtype, e.tobytes()), name
    for name in ("kind", "mode", "bias", "threshold", "facts"):
        assert getattr(actual.gate, name) == getattr(expected.gate, name), name
    for name in ("strength", "scope", "model", "facts", "digest"):
        assert getattr(actual, name) == getattr(expected, name), name


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_steering_comes_back_exactly_and_with_the_same_bytes(tmp_path: Path, steering: Steering) -> None:
    folder = tmp_path / "runs" / "steering"
    assert steering.save_pretrained(folder) == folder
    first = content(folder)
    assert set(first) == FILES
    loaded = Steering.from_pretrained(str(folder))
    assert_equal(loaded, steering)
    save_steering(loaded, folder, force=True)
    assert content(folder) == first
    assert list(folder.parent.iterdir()) == [folder]


def test_a_gate_without_features_has_no_file(tmp_path: Path, steering: Steering) -> None:
    save_steering(steering, tmp_path / "a")
    plain = replace(steering.with_gate(ALWAYS), scope="all", gain=np.full(7, -1, np.float32), strength=0.0)
    save_steering(plain, tmp_path / "a", force=True)
    assert set(content(tmp_path / "a")) == FILES - {"gate.safetensors"}
    assert_equal(load_steering(tmp_path / "a"), plain)


def test_nothing_is_overwritten_without_force(tmp_path: Path, steering: Steering) -> None:
    (tmp_path / "empty").mkdir()
    save_steering(steering, tmp_path / "empty")
    before = content(tmp_path / "empty")
    with pytest.raises(StoreError, match=r"already holds an artifact.*force"):
        save_steering(steering.with_strength(0.5), tmp_path / "empty")
    assert content(tmp_path / "empty") == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("names", [["thesis.tex"], ["README.md"], ["config.json", "thesis.tex"]])
def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, steering: Steering, force: bool, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(StoreError, match="something other than an artifact"):
        save_steering(steering, tmp_path, force=force)
    assert content(tmp_path) == dict.fromkeys(names, b"precious")


def test_all_or_nothing(tmp_path: Path, steering: Steering, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a"
    save_steering(steering, folder)
    before = content(folder)

    def fail(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trimtab.store.artifact.render_card", fail)
    with pytest.raises(StoreError, match="free space"):
        save_steering(steering.with_strength(9.0), folder, force=True)
    with pytest.raises(StoreError, match="free space"):
        save_steering(steering, tmp_path / "b")
    assert content(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_in_place_of_the_folder(tmp_path: Path, steering: Steering) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        save_steering(steering, tmp_path / "file")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        save_steering(steering, tmp_path / "file" / "a")


@pytest.mark.parametrize("name", ["config.json", "neurons.safetensors", "gate.safetensors"])
def test_truncated_and_missing_files(tmp_path: Path, steering: Steering, name: str) -> None:
    path = save_steering(steering, tmp_path / "a") / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=rf"{name} is truncated"):
        load_steering(tmp_path / "a")
    path.unlink()
    with pytest.raises(StoreError, match=rf"{name} is missing"):
        load_steering(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'.*accepted keys: format_version"),
        ({"format_version": 1}, "format_version: Input should be 2"),
        ({"strength": 0.5}, r"config\.json was changed after it was written"),
        ({"sha256": {}}, r"neurons\.safetensors is truncated, damaged or was changed"),
        ({"neuron_definition": "act_fn_output"}, "neuron_definition: Input should be 'down_proj_input'"),
        ({"scope": "prompt"}, "scope: Input should be 'generated'"),
        ({"scope": "all"}, "logistic gate"),
        ({"strength": "0.3"}, "strength: Input should be a valid number"),
        ({"n_neurons": 8}, r"neurons\.safetensors holds"),
    ],
)
def test_an_edited_config_is_named(tmp_path: Path, steering: Steering, change: dict[str, object], message: str) -> None:
    path = save_steering(steering, tmp_path / "a") / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StoreError, match=message):
        load_steering(tmp_path / "a")


def test_an_edited_gate_is_named(tmp_path: Path, steering: Steering) -> None:
    path = save_steering(steering, tmp_path / "a") / "config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"colour": 1}, r"unknown key 'gate\.colour'"),
        ({"threshold": 1.5}, "threshold between 0 and 1"),
        ({"n_features": 2}, "gate.safetensors holds"),
    ):
        path.write_text(json.dumps({**config, "gate": {**config["gate"], **change}}))
        with pytest.raises(StoreError, match=message):
            load_steering(tmp_path / "a")


def test_sources_that_are_nothing(tmp_path: Path, steering: Steering) -> None:
    for source in (tmp_path / "none", str(tmp_path / "none"), "none", Path("owner/name")):
        with pytest.raises(StoreError, match="does not exist; give the folder of an artifact or the id of a hub repository"):
            load_steering(source)
    save_steering(steering, tmp_path / "a")
    with pytest.raises(StoreError, match="is a folder and has no revision 'main'"):
        load_steering(tmp_path / "a", revision="main")


def test_versions_are_stored(tmp_path: Path, steering: Steering) -> None:
    config = json.loads((save_steering(steering, tmp_path / "a") / "config.json").read_text())
    assert config["versions"]["numpy"] == np.__version__


def front_matter(card: str) -> dict[str, object]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_model_card(tmp_path: Path, steering: Steering) -> None:
    card = (save_steering(steering, tmp_path / "a") / "README.md").read_text()
    assert front_matter(card) == {
        "library_name": "trimtab",
        "base_model": "some/model",
        "license": "unknown",
        "tags": ["trimtab", "activation-steering", "reasoning", "interpretability"],
    }
    for line in (
        "| strength | 0.3 |",
        "| accuracy | 0.625 | 0.51 to 0.7251 | 80 |",
        "| gate | logistic, last prompt token, proportional, 3 features, threshold 0.42 |",
        "| criterion | adaras |",
        "| gate.auroc | 0.7612345678901234 |",
        "- A gain measured on one benchmark says nothing about others.",
    ):
        assert f"\n{line}\n" in card
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert len(code.splitlines()) == 5
    assert "from_pretrained('a')" in code


def test_a_card_without_metrics_says_so(tmp_path: Path, steering: Steering) -> None:
    bare = replace(steering.with_gate(ALWAYS), facts={"license": "apache-2.0"})
    card = (save_steering(bare, tmp_path / "a") / "README.md").read_text()
    assert "whether it helps was not measured" in card
    assert "No facts were stored" in card
    assert front_matter(card)["license"] == "apache-2.0"


def test_values_cannot_break_out_of_the_card(tmp_path: Path, steering: Steering) -> None:
    name = 'C:\\models\n---\nlicense: "mine" | <b>`'
    facts: dict[str, object] = {"note": "a | b\n\n# heading", "long": "x" * 999, "license": "a: b\n- c", "list": [1, "<i>"]}
    hostile = replace(steering, model=replace(steering.model, name=name), facts=facts)
    card = (save_steering(hostile, tmp_path / "a") / "README.md").read_text()
    matter = front_matter(card)
    assert "base_model" not in matter
    assert matter["license"] == "a: b\n- c"
    assert "\n| note | a \\| b # heading |\n" in card
    assert f"\n| long | {'x' * 200}… |\n" in card
    assert "<b>" not in card.replace(repr(name), "")
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")


@pytest.mark.parametrize("metrics", [3, {"a": 0.5}, {"a": {}}, {"a": {"value": 1, "colour": 2}}, {"a": {"value": 1, "low": 0}}])
def test_metrics_of_another_form_are_refused(tmp_path: Path, steering: Steering, metrics: object) -> None:
    with pytest.raises(InputError, match=r'facts\["metrics"\] must map'):
        save_steering(replace(steering, facts={"metrics": metrics}), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_run_names_its_artifact(steering: Steering, tmp_path: Path) -> None:
    save_steering(steering, str(tmp_path / "run" / "steering"))
    with pytest.raises(StoreError, match=r"run is a run, not an artifact; its artifact is .*run/steering: give that folder"):
        load_steering(str(tmp_path / "run"))


@pytest.mark.parametrize("name", ["neurons.safetensors", "gate.safetensors"])
def test_one_flipped_bit_is_never_read(tmp_path: Path, steering: Steering, name: str) -> None:
    path = save_steering(steering, tmp_path / "a") / name
    whole = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, 8 * len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=rf"{name} is truncated, damaged or was changed"):
            load_steering(tmp_path / "a")
    path.write_bytes(whole)
    assert load_steering(tmp_path / "a").digest == steering.digest


def with_directions(steering: Steering) -> Steering:
    vectors = np.random.default_rng(1).normal(size=(2, steering.model.d_model)).astype(np.float32)
    return replace(steering, direction_layer=np.array([0, 1]), direction=vectors)


def test_directions_come_back_exactly_under_a_version_of_their_own(tmp_path: Path, steering: Steering) -> None:
    saved = with_directions(steering)
    save_steering(saved, tmp_path / "a")
    first = content(tmp_path / "a")
    assert set(first) == FILES | {"directions.safetensors"}
    assert json.loads(first["config.json"])["format_version"] == 3
    loaded = load_steering(tmp_path / "a")
    assert_equal(loaded, saved)
    for name in ("direction_layer", "direction"):
        a, e = getattr(loaded, name), getattr(saved, name)
        assert (a.dtype, a.tobytes()) == (e.dtype, e.tobytes()), name
    assert "| directions | 2, after layers 0, 1 |" in first["README.md"].decode()
    save_steering(loaded, tmp_path / "a", force=True)
    assert content(tmp_path / "a") == first
    save_steering(steering, tmp_path / "a", force=True)  # what is left of the directions goes
    assert json.loads((tmp_path / "a/config.json").read_text())["format_version"] == 2
    assert set(content(tmp_path / "a")) == FILES


def test_a_card_of_directions_alone_speaks_of_no_neuron(tmp_path: Path, steering: Steering) -> None:
    bare = steering.with_gate(ALWAYS)
    alone = Directions(np.array([1]), np.ones((1, steering.model.d_model), np.float32), "mean-difference", bare.model).steering()
    save_steering(alone, tmp_path / "a")
    card = (tmp_path / "a/README.md").read_text()
    assert "along a direction" in card
    assert "feed-forward neurons" not in card
    assert load_steering(tmp_path / "a").digest == alone.digest


@pytest.mark.parametrize("damage", ["file", "count", "both", "gone"])
def test_directions_that_were_changed_are_refused(tmp_path: Path, steering: Steering, damage: str) -> None:
    save_steering(with_directions(steering), tmp_path / "a")
    config, file = tmp_path / "a/config.json", tmp_path / "a/directions.safetensors"
    if damage in ("file", "both"):
        file.write_bytes(file.read_bytes()[:-4])
    if damage == "gone":
        file.unlink()
    if damage in ("count", "both"):
        told = json.loads(config.read_text())
        config.write_text(json.dumps({**told, "n_directions": 0}))
    with pytest.raises(StoreError, match=r"changed|truncated|missing|cannot be read|does not exist"):
        load_steering(tmp_path / "a")
