"""The ablation end to end on a small run, and how a contrast is balanced again."""

import pytest

from search_samples import changed
from trimtab.experiments import Search
from trimtab.experiments.ablate import FULL, ablate, balanced
from trimtab.ranking import CRITERIA
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Split


def rows(problem: str, correct: int, incorrect: int) -> list[ContrastRow]:
    made = [ContrastRow(f"{problem}/{i}", problem, True) for i in range(correct)]
    return made + [ContrastRow(f"{problem}/{correct + i}", problem, False) for i in range(incorrect)]


def test_balancing_takes_the_first_of_each_and_drops_one_sided_problems() -> None:
    kept = balanced([*rows("a", 3, 1), *rows("b", 2, 0), *rows("c", 1, 2)])
    assert [row.trace_id for row in kept] == ["a/0", "a/3", "c/0", "c/1"]


@pytest.fixture
def quick(search: Search) -> Search:
    """Chains of a few tokens, all of them cut: what is run matters here, not what comes out."""
    return changed(search, sampling=search.sampling.model_copy(update={"max_new_tokens": 6}))


def test_every_part_and_every_criterion_has_its_row_and_runs_once(quick: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ablate(quick)
    n = len(quick.split(Split.TEST))
    assert all(row["n"] == n for frame in found.frames if frame.name != "directions-grid" for row in frame.rows)
    adaras = list(dict.fromkeys(row["label"] for row in found["adaras-ablation"].rows))
    assert adaras == ["unsteered", "random neurons", "without mean difference", "without sign flip", "without the gate", FULL]
    assert [row["label"] for row in found["adaras-ablation"].rows if row["chosen"]] == [FULL]
    shown = {row["label"] for row in found["criteria-ablate"].rows}
    named = " ".join(found.sentences)
    for criterion in set(CRITERIA) - {"adaras-float32"}:
        assert criterion in shown or f"Criterion {criterion}" in named

    along = [row["label"] for row in found["directions"].rows]
    assert along[:2] == ["unsteered", "random directions"]
    assert "neurons" in along
    assert sum(label.startswith("direction after layer ") for label in along) == 2  # behind the gate, and without it
    assert [row["label"] for row in found["directions"].rows if row["chosen"]] == ["neurons"]
    assert len(found["directions-grid"].rows) == quick.model.n_layers * 4
    assert "Neurons beside the direction:" in named

    trained = [row["label"] for row in found["trained"].rows]
    assert list(dict.fromkeys(trained))[:4] == ["unsteered", "closed form", "trained", "trained, random neurons"]
    assert sum(label.startswith("trained, all ") for label in trained) == 1
    assert trained.count("trained, random neurons") == 1 + quick.settings.random_sets
    assert "Gains and shifts learned by gradient on the chosen neurons:" in named

    def forbidden(*args: object, **options: object) -> None:
        raise AssertionError("a forward ran")

    monkeypatch.setattr("trimtab.sampling.generator.generate_batch", forbidden)
    assert ablate(quick).to_json() == found.to_json()
