"""(k) A condition that is written from the bare model's responses as drafts, beside the plain way; both give the same tokens."""

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.speed.decoding import PROMPT_TOKENS, spread_steering
from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import in_turn, timed
from benchmarks.speed.workload import random_traces
from trimtab.model import LanguageModel
from trimtab.sampling import Request, SamplingSettings, generate_batch
from trimtab.sampling.prefills import Prefills
from trimtab.steering import Steering
from trimtab.tasks import CHAT, render_prompt
from trimtab.testbed.problems import unique_problems

NEURONS = 50
STRENGTHS: Mapping[str, float] = {"hardly departs": 1.0, "departs": 2e4}
"""Of a steering whose shifts are 1e-4: one that leaves nearly all responses as they are, and one that leaves few."""


def measure(twelve: LanguageModel, reasoner: LanguageModel, sizes: Sizes) -> dict[str, dict[str, object]]:
    """Seconds of the plain way over those with drafts, by model, batch and condition; a prompt's forward is shared by both."""
    found = {}
    for batch in sizes.batches:
        requests = [Request(t.id, t.prompt_ids) for t in random_traces(twelve, [3 * PROMPT_TOKENS] * batch)]
        for name, row in _conditions(twelve, requests, sizes.new_tokens, sizes.pairs).items():
            found[f"12x768, batch {batch}, {name}"] = row
    questions = [problem.question for problem in unique_problems("validation", sizes.testbed_traces, 0)]
    requests = [Request(str(i), render_prompt(reasoner.tokenizer, question, CHAT)) for i, question in enumerate(questions)]
    for name, row in _conditions(reasoner, requests, 104, sizes.pairs).items():
        found[f"testbed, batch {len(requests)}, {name}"] = row
    return found


def _conditions(model: LanguageModel, requests: list[Request], tokens: int, pairs: int) -> dict[str, dict[str, object]]:
    settings = SamplingSettings(n=1, temperature=0.0, max_new_tokens=tokens)
    prefills = Prefills(2**40)
    bare = {one.id: one.response_ids for one in generate_batch(model, requests, settings, prefills=prefills)}
    rows = {}
    for name, strength in STRENGTHS.items():
        steering = replace(spread_steering(model, NEURONS), strength=strength)

        def run(drafts: Mapping[str, tuple[int, ...]] | None, steering: Steering = steering) -> dict[str, tuple[int, ...]]:
            found = generate_batch(model, requests, settings, steering, "on", prefills=prefills, drafts=drafts)
            return {one.id: one.response_ids for one in found}

        plain = run(None)
        if run(bare) != plain:
            raise AssertionError(f"drafts changed a token of {model.identity.name} ({name}), so no time is measured")
        unchanged = sum(bare[i] == plain[i] for i in bare) / len(bare)
        measured = in_turn(
            lambda run=run: timed(lambda: run(None)), lambda run=run: timed(lambda: run(bare)), pairs, warm_up=False
        )
        what = "seconds of the plain way over those with drafts"
        rows[name] = {"what": what, "unchanged_responses": round(unchanged, 3), **measured.to_json()}
    return rows
