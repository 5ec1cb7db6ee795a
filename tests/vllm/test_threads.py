"""Threads that share an engine."""

from concurrent.futures import ThreadPoolExecutor

from live_engines import mild, prompts
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel
from trimtab.sampling import Request, SamplingSettings, VllmEngine, VllmOptions
from trimtab.steering import Steering


def test_threads_that_share_an_engine_take_turns(reasoner: LanguageModel) -> None:
    settings = SamplingSettings(n=1, temperature=0.0, max_new_tokens=24)
    requests = [Request(f"{i}/0", tuple(prompt)) for i, prompt in enumerate(prompts(reasoner))]
    chosen = [None, *(mild(reasoner, ALWAYS, seed=seed) for seed in range(3))] * 3
    with VllmEngine(VllmOptions(enforce_eager=True)) as engine:

        def run(steering: Steering | None) -> list[tuple[int, ...]]:
            return [one.response_ids for one in engine.generate(reasoner, requests, settings, steering, "on")]

        alone = [run(steering) for steering in chosen[:4]]
        assert len({str(each) for each in alone}) == 4
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(run, chosen)) == alone * 3
