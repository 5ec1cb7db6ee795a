"""Conversations with the prefix cache on, whose turns are steered in different ways. Among the core tests, since
engines that others start and stop in this process end those that these share."""

from typing import Any

import numpy as np
import pytest

from live_engines import BLOCK, answer, prompts, sampling, tokens
from trimtab.gating.reading import predict
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.vllm_plugin.offline import gate_outputs

LENGTH = 40
TURNS: list[dict[str, Any]] = [
    {"steering": "mild-gated"},
    {},
    {"steering": "mild-gated", "gate": "on"},
    {"steering": "mild-gated"},
    {"steering": "six", "strength": 0.5},
    {},
]


def blocks(number: int) -> int:
    """Tokens of whole blocks."""
    return number // BLOCK * BLOCK


@pytest.mark.parametrize("name", ["eager", "compiled"])
def test_turns_of_a_chat_are_steered_each_by_its_own(
    name: str, reasoner: LanguageModel, steerings: dict[str, str], request: pytest.FixtureRequest
) -> None:
    llm, asked = request.getfixturevalue(name), prompts(reasoner)
    llm.reset_prefix_cache()
    conversation, turns = list(asked[1]), []
    for turn, xargs in enumerate(TURNS):
        (output,) = answer(llm, [conversation], [sampling(LENGTH, **xargs)])
        (read,) = gate_outputs(llm, [output.request_id])
        turns.append((tuple(conversation), tokens(output), output.num_cached_tokens, read and read["p_fail"]))
        conversation = [*conversation, *tokens(output), *asked[turn % len(asked)]]
    gate = Steering.from_pretrained(steerings["mild-gated"]).gate
    expected = predict(reasoner, gate, {str(i): prompt for i, (prompt, *_) in enumerate(turns)})
    for i, (prompt, said, _, p_fail) in enumerate(turns):
        if TURNS[i].get("steering") == "mild-gated":
            np.testing.assert_allclose(p_fail, expected[str(i)], atol=1e-5)
        llm.reset_prefix_cache()
        (fresh,) = answer(llm, [list(prompt)], [sampling(LENGTH, **TURNS[i])])
        assert tokens(fresh) == said, f"turn {i} used a block that was computed otherwise"
    cached = [each[2] for each in turns]
    first, second = (len(turns[i][0]) for i in (0, 1))
    assert cached[:3] == [0, 0, 0]  # a gate that is asked and one held open have nothing in common, nor have they with none
    assert cached[3] == blocks(first)  # the first turn's prompt, and nothing of what it said
    assert cached[4] == 0
    assert cached[5] >= blocks(second + LENGTH - 1)  # the unsteered turn, its answer included
