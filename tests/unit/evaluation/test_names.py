"""The order of a table, and who makes a claim."""

from trimtab.evaluation.rows import CLAIMS, CONTROLS, UNSTEERED, is_claim, place


def test_the_order_of_a_table() -> None:
    shuffled = ["random", "my-own", "majority", "unsteered", "negative", "gated", "random-norm", "another", "sft-lora", "always"]
    ordered = ["unsteered", "always", "gated", "sft-lora", "majority", "my-own", "another", "negative", "random", "random-norm"]
    assert sorted(shuffled, key=place) == ordered


def test_controls_and_the_unsteered_model_claim_nothing() -> None:
    assert not any(map(is_claim, (UNSTEERED, *CONTROLS)))
    assert all(map(is_claim, (*CLAIMS, "my-own")))
