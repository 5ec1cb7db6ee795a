"""The least that has to work, on one small engine without compilation."""

import re
from typing import Any

import pytest

pytest.importorskip("vllm")

from vllm.exceptions import VLLMValidationError

from live_engines import Figures, answer, prompts, sampling
from live_rows import mixes
from trimtab.model import LanguageModel
from trimtab.vllm_plugin.offline import status


def test_a_few_random_mixes(eager: Any, reasoner: LanguageModel, figures: Figures) -> None:
    total, wrong = mixes(eager, reasoner, 10, seed=1)
    figures(f"{wrong} wrong rows among {total} requests in 10 mixes (eager)")
    assert wrong == 0


def test_the_engine_says_what_it_does(eager: Any, figures: Figures) -> None:
    told = status(eager)
    assert told["self_test"] == {"layers": (0, 1, 2, 3), "identical": True, "counted": True}
    assert told["runner"] == "V1"
    figures(f"start-up {told['startup_seconds']:.2f} s more")
    assert told["startup_seconds"] < 5


@pytest.mark.parametrize(
    ("xargs", "named"),
    [
        ({"steering": "nothing"}, "steering 'nothing' cannot be used; accepted: none, mild"),
        ({"steering": "six", "strength": float("nan")}, "strength nan cannot be used"),
        ({"steering": "six", "strength": "1"}, "strength '1' cannot be used"),
        ({"steering": "six", "gate": "maybe"}, "gate 'maybe' cannot be used; accepted: auto, on, off"),
        ({"steering": "six", "scope": "prompt"}, "accepted: generated, last-and-generated, all"),
        ({"steering": "gated", "scope": "all"}, "cannot wait for the gate"),
        ({"strength": 1.0}, "has no effect on an unsteered request"),
        ({"trimtab_slot": 1}, "is set by the engine itself"),
        ({"record": 1}, "started without `record`"),
    ],
)
def test_a_bad_request_is_refused_and_harms_no_other(
    eager: Any, reasoner: LanguageModel, xargs: dict[str, Any], named: str
) -> None:
    with pytest.raises(VLLMValidationError, match=re.escape(named)):
        answer(eager, prompts(reasoner)[:1], [sampling(2, **xargs)])
    assert answer(eager, prompts(reasoner)[:1], [sampling(2, steering="six")])[0].finished


def test_a_caller_cannot_choose_a_salt_of_ours(eager: Any, reasoner: LanguageModel) -> None:
    with pytest.raises(VLLMValidationError, match="cache_salt 'trimtab:abc' cannot be used"):
        eager.generate([{"prompt_token_ids": prompts(reasoner)[0], "cache_salt": "trimtab:abc"}], sampling(2), use_tqdm=False)
