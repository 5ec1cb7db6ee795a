"""``--dry-run``: the cost of a run, before anything is computed."""

import time
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from trimtab.model import LanguageModel
from trimtab.report.wording import duration
from trimtab.sampling import SamplingSettings, generate_batch, plan_requests
from trimtab.sampling.prefills import kept_positions
from trimtab.study.answers import PROMPT_SETS
from trimtab.study.base import open_configured
from trimtab.study.settings import Settings, Stage
from trimtab.tasks import Prompt, load_problems
from trimtab.tasks.files import read_rows
from trimtab.traces import Problem, Split

PROBE_TOKENS = 16
BYTES_PER_MOMENT = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """Upper bounds: every response is taken to run to ``max_new_tokens``. Baselines are not counted.

    Args:
        tokens: generated tokens by stage.
        disk_bytes: of the moments, by far the largest files.
        memory_bytes: in each process: weights, the key-value cache of one batch, and the prompts that are kept for other
            conditions.
        tokens_per_second: measured on the first steps of the run's own first batch; None when nothing is generated.
        seconds: tokens over that speed; None when nothing is generated, for reading imported traces is not measured.
    """

    tokens: dict[str, int]
    disk_bytes: int
    memory_bytes: int
    tokens_per_second: float | None
    seconds: float | None

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{stage:<12}{tokens:>14,} tokens at most" for stage, tokens in self.tokens.items()]
        lines += [
            f"{'disk':<12}{self.disk_bytes / 1e6:>14,.1f} MB at most",
            f"{'memory':<12}{self.memory_bytes / 1e6:>14,.1f} MB a process: weights, one batch's cache and kept prompts",
        ]
        if self.tokens_per_second is None or self.seconds is None:
            return "\n".join([*lines, "time is not estimated: nothing is generated, and reading imported traces is not measured"])
        lines += [
            f"{'speed':<12}{self.tokens_per_second:>14,.0f} tokens/s, measured on the run's own first batch",
            f"{'time':<12}{duration(self.seconds):>14} at most: if every response runs to sampling.max_new_tokens",
        ]
        return "\n".join(lines)


def estimate(config: Settings, until: Stage) -> Cost:
    """Count tokens, bytes and time of a run without writing anything."""
    model = open_configured(config.model)
    if config.traces.path:
        n_traces = sum(1 for _ in read_rows(Path(config.traces.path)))
        return Cost({}, _disk(config, model, n_traces, 0), _weights(model), None, None)
    problems = load_problems(config.task)
    counts = {split: sum(p.split is split for p in problems) for split in Split}
    limit, conditions = config.sampling.max_new_tokens, 5 + 2 * config.evaluation.random_sets
    choices = (config.ranking.criteria, config.tune.interventions, config.tune.k, config.tune.strengths)
    grid = prod(map(len, choices)) + 1
    responses = config.evaluation.n * len(config.evaluation.seeds)
    greedy = counts[Split.TRAIN] + counts[Split.VALIDATION] if config.gate.fitted else 0
    judged = counts[config.evaluation.split]
    controls = sum(name in config.evaluation.controls for name in ("again", "first-token"))
    answers = judged * conditions + controls * min(config.evaluation.control_problems or judged, judged)
    recurrence = config.contrast.recurrence
    tokens = {
        "sample": (counts[Split.TRAIN] * config.sampling.n + greedy) * limit,
        "tune": min(counts[Split.VALIDATION], config.tune.problems) * grid * limit
        if until in ("tune", "evaluate", "report")
        else 0,
        "evaluate": answers * responses * limit if until in ("evaluate", "report") else 0,
    }
    if recurrence.traces:
        tokens["contrast"] = recurrence.traces * recurrence.times * limit
    sampled = [problem for problem in problems if problem.split is Split.TRAIN] or problems
    speed = _speed(model, sampled, config.sampling, config.prompt)
    return Cost(
        tokens=tokens,
        disk_bytes=_disk(config, model, counts[Split.TRAIN] * config.sampling.n, greedy),
        memory_bytes=_weights(model)
        + _cache(model, config.sampling.batch_tokens + PROMPT_SETS * kept_positions(config.sampling.batch_tokens)),
        tokens_per_second=speed,
        seconds=sum(tokens.values()) / speed,
    )


def _disk(config: Settings, model: LanguageModel, n_traces: int, n_prompts: int) -> int:
    per_trace = len(config.recording.scopes) * len(config.recording.moments)
    per_prompt = len(config.gate.recorded)
    return (n_traces * per_trace + n_prompts * per_prompt) * model.identity.n_neurons * BYTES_PER_MOMENT


def _weights(model: LanguageModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.hf_model.parameters())


def _cache(model: LanguageModel, tokens: int) -> int:
    text = model.hf_model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * model.n_layers * heads * width * tokens * model.hf_model.dtype.itemsize


def _speed(model: LanguageModel, problems: list[Problem], sampling: SamplingSettings, prompt: Prompt) -> float:
    """Tokens per second of the run's own first batch, over a few steps."""
    requests, plan = plan_requests(model, problems, sampling, prompt)
    batch = [requests[name] for name in plan.parts[0]]
    probe = sampling.greedy().model_copy(update={"max_new_tokens": min(PROBE_TOKENS, sampling.max_new_tokens)})
    start = time.perf_counter()
    generations = generate_batch(model, batch, probe)
    return sum(len(g.response_ids) for g in generations) / (time.perf_counter() - start)
