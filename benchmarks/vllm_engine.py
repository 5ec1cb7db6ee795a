"""The cost of steering in vLLM, and whether the verdict stays the same.

    python benchmarks/vllm_engine.py [RUN] [--requests 128] [--tokens 96] [--repeats 9] [--threads 2] [--eager] [--problems 1000]
        [--models 12x768 bundled]

RUN is a finished run of the testbed, such as that of ``trimtab demo``. Needs vLLM (docs/vllm.md). For a random Qwen3 of 12
layers and width 768 and for the bundled model, three engines wait in processes of their own: without the plugin
(``VLLM_PLUGINS=``), with the plugin installed and not asked for, and with it and a steering of 50 neurons, once behind a gate of
4096 features that fires on every prompt and once behind a running gate on the same features that opens at the first token. They
take turns on the same requests, so that every ratio is of neighbours in time; the time to the first token is that of single
requests with prompts of 256 tokens, one after the other. Then the test problems of RUN are answered unsteered and gated, by vLLM
and by transformers; and under all conditions of its verdict by vLLM, as ``evaluate`` does, and token by token. The last line
is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.export.checkpoint import open_checkpoint
from trimtab.gate import Gate, RunningGate
from trimtab.steering import Steering
from trimtab.testbed.models import resolve
from trimtab.testbed.random_model import byte_tokenizer, random_qwen3

NEURONS, FEATURES, PROMPT_TOKENS = 50, 4096, 32
FIRST_REQUESTS, FIRST_PROMPT_TOKENS = 8, 256
"""Single requests for one token each, of which a pass for the time to the first token consists."""
BUNDLED, LARGE = "bundled", "12x768"
MARK = "trimtab-benchmark "
KINDS = {"absent": ("unsteered",), "unused": ("unsteered",), "plugin": ("unsteered", "steered", "gated", "running")}
"""What each process runs: ``steered`` does not ask the gate, ``gated`` does, ``running`` asks one at every token; all steer every
request."""


class Worker:
    """One engine in a process of its own."""

    def __init__(self, name: str, model: str, steering: Path, given: argparse.Namespace) -> None:
        environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
        # a graph that one engine has compiled would shorten the start of the next
        environment |= {"VLLM_DISABLE_COMPILE_CACHE": "1", "OMP_NUM_THREADS": str(given.threads)}
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        if name == "absent":
            environment["VLLM_PLUGINS"] = ""
        settings = json.dumps({"name": name, "model": model, "steering": str(steering), **vars(given), "run": None})
        command = [sys.executable, __file__, "--worker", settings]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.start = self._read()

    def seconds(self, kind: str, first: bool = False) -> float:
        """One pass over all requests, or over the single ones for a first token."""
        assert self._process.stdin is not None
        print(json.dumps({"kind": kind, "first": first}), file=self._process.stdin, flush=True)
        return self._read()["seconds"]

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise SystemExit(f"an engine has ended; its messages stand above (exit code {self._process.wait()})")


def work(settings: dict[str, Any]) -> None:
    """What a worker's process does: start an engine, then run the passes that are asked for on stdin."""
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    arguments = {
        "dtype": "float32",
        "max_model_len": 512,
        "max_num_seqs": 256,
        "enforce_eager": settings["eager"],
        "enable_prefix_caching": False,
        "skip_tokenizer_init": True,
        "use_tqdm_on_load": False,
    }
    began, added = time.perf_counter(), 0.0
    if settings["name"] == "plugin":
        from trimtab.vllm_plugin.offline import open_llm, status

        folder = Path(settings["steering"])
        llm = open_llm(settings["model"], {"s": folder / "gated", "r": folder / "running"}, **arguments)
        added = float(status(llm)["startup_seconds"])  # type: ignore[arg-type]
    else:
        llm = LLM(settings["model"], **arguments)
    tell(start=time.perf_counter() - began, added=added)
    vocabulary = llm.llm_engine.model_config.get_vocab_size()
    draw = np.random.default_rng(0)
    ids = draw.integers(8, vocabulary, (settings["requests"], PROMPT_TOKENS)).tolist()
    single = draw.integers(8, vocabulary, (FIRST_REQUESTS, FIRST_PROMPT_TOKENS)).tolist()
    options = {
        "unsteered": None,
        "steered": {"steering": "s", "gate": "on"},
        "gated": {"steering": "s"},
        "running": {"steering": "r"},
    }
    for line in sys.stdin:
        wanted = json.loads(line)
        tokens, batches = (1, [[row] for row in single]) if wanted["first"] else (settings["tokens"], [ids])
        asked = SamplingParams(
            temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False, extra_args=options[wanted["kind"]]
        )
        began = time.perf_counter()
        outputs = [
            output
            for rows in batches
            for output in llm.generate([{"prompt_token_ids": row} for row in rows], asked, use_tqdm=False)
        ]
        seconds = time.perf_counter() - began
        assert all(len(output.outputs[0].token_ids) == tokens for output in outputs)
        tell(seconds=seconds)


def tell(**figures: float) -> None:
    """A line for the process that waits."""
    print(MARK + json.dumps(figures), flush=True)


def steerings_of(model: str, folder: Path) -> Path:
    """A folder with 50 neurons over all layers that move a little, behind a gate of either kind."""
    identity, draw = open_checkpoint(model).identity, np.random.default_rng(0)
    flat = draw.permutation(identity.n_neurons)[:NEURONS]
    read = np.sort(draw.permutation(identity.n_neurons)[:FEATURES])
    weight = draw.normal(0.0, 1e-6, len(read)).astype(np.float32)
    place = {"layer": read // identity.d_ff, "index": read % identity.d_ff, "weight": weight, "bias": 5.0, "threshold": 0.5}
    gain, shift = (draw.normal(0.0, 0.01, NEURONS).astype(np.float32) for _ in range(2))
    for name, gate in (("gated", Gate("logistic", **place)), ("running", RunningGate(**place))):
        neurons = flat // identity.d_ff, flat % identity.d_ff
        Steering(*neurons, gain, shift, 1.0, "generated", gate, identity).save_pretrained(folder / name)
    return folder


@contextmanager
def workers(model: str, steering: Path, given: argparse.Namespace) -> Iterator[dict[str, Worker]]:
    """The three engines, started one after the other."""
    with ExitStack() as stack:
        started = {}
        for name in KINDS:
            started[name] = Worker(name, model, steering, given)
            stack.callback(started[name].stop)
            print(f"  {name:<8} started in {started[name].start['start']:.1f} s", flush=True)
        yield started


def speed(label: str, model: str, folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """Ratios of throughput, and what the plugin adds to a start."""
    print(f"{label}: {model}", flush=True)
    passes = [(name, kind) for name, kinds in KINDS.items() for kind in kinds]
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in passes}
    first: dict[tuple[str, str], list[float]] = {key: [] for key in passes}
    with workers(model, steerings_of(model, folder / f"steering-{label}"), given) as started:
        for name, kind in passes:
            started[name].seconds(kind)  # the first pass warms up
            started[name].seconds(kind, first=True)
        for repeat in range(given.repeats):
            for name, kind in passes[:: 1 if repeat % 2 else -1]:
                seconds[name, kind].append(started[name].seconds(kind))
                first[name, kind].append(started[name].seconds(kind, first=True))
        added = started["plugin"].start["added"]
        starts = {name: round(worker.start["start"], 2) for name, worker in started.items()}
    base, own = seconds["absent", "unsteered"], seconds["plugin", "unsteered"]
    ratios = {
        "unused over absent": ratio(base, seconds["unused", "unsteered"]),
        "unsteered with plugin over absent": ratio(base, own),
        "steered over absent": ratio(base, seconds["plugin", "steered"]),
        "gated over absent": ratio(base, seconds["plugin", "gated"]),
        "running over absent": ratio(base, seconds["plugin", "running"]),
        "steered over unsteered": ratio(own, seconds["plugin", "steered"]),
        "gated over unsteered": ratio(own, seconds["plugin", "gated"]),
        "running over unsteered": ratio(own, seconds["plugin", "running"]),
    }
    # the time of one over that of the other, so the throughput the other way round
    latency = {f"{kind} over absent": ratio(first["plugin", kind], first["absent", "unsteered"]) for kind in KINDS["plugin"]}
    rate = given.requests * given.tokens / statistics.median(base)
    for name, (low, middle, high) in ratios.items():
        print(f"  {name:<34} {middle:.3f}  ({low:.3f} to {high:.3f})")
    milliseconds = 1000 * statistics.median(first["absent", "unsteered"]) / FIRST_REQUESTS
    for name, (low, middle, high) in latency.items():
        print(f"  time to the first token, {name:<24} {middle:.3f}  ({low:.3f} to {high:.3f})")
    print(f"  first token without plugin {milliseconds:.1f} ms")
    print(f"  without plugin {rate:,.0f} tokens/s; the plugin adds {added:.2f} s to the start")
    return {
        "tokens_per_second": round(rate),
        "throughput": ratios,
        "first_token": latency,
        "first_token_ms": round(milliseconds, 2),
        "start_seconds": starts,
        "plugin_start_seconds": round(added, 2),
    }


def ratio(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of the throughput after over that before, pair by pair."""
    pairs = [b / a for b, a in zip(before, after, strict=True)]
    low, middle, high = np.quantile(pairs, (0.25, 0.5, 0.75)).round(4).tolist()
    return low, middle, high


def verdict(path: Path, given: argparse.Namespace) -> dict[str, object]:
    """Accuracy of both engines on a run's test problems, and every answer in which they differ."""
    from trimtab.sampling import TRANSFORMERS, VllmEngine, VllmOptions, plan_requests
    from trimtab.sampling.agreement import partings
    from trimtab.sampling.sample import as_trace
    from trimtab.study import Study
    from trimtab.tasks import grade_traces
    from trimtab.traces import Split

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    found: dict[str, object] = {}
    with Study.from_toml(path) as study, VllmEngine(VllmOptions(enforce_eager=given.eager)) as engine:
        problems = {p.id: p for p in study.problems().split(Split.TEST)[: given.problems]}
        settings, model = study.settings.sampling.greedy(), study.model
        requests = list(plan_requests(model, list(problems.values()), settings, study.settings.prompt)[0].values())
        for label, steering in (("unsteered", None), ("gated", study.tuned().steering)):
            answers, figures = {}, {}
            for name, generator in (("transformers", TRANSFORMERS), ("vllm", engine)):
                began = time.perf_counter()
                answers[name] = generator.generate(model, requests, settings, steering, "auto")
                seconds = time.perf_counter() - began
                traces = [as_trace(model, request, one) for request, one in zip(requests, answers[name], strict=True)]
                right = sum(grade.score == "correct" for grade in grade_traces(traces, problems, study.grader))
                figures[name] = right / len(requests)
                print(f"{label:<10} {name:<13} {figures[name]:.4f} correct, {seconds:.1f} s", flush=True)
            apart = partings(model, requests, answers["transformers"], answers["vllm"], steering, "auto")
            for one in apart:
                print(f"  differs from token {one.step} on, top-2 gap {one.gap:.2e}: {one.id}")
            pairs = zip(answers["transformers"], answers["vllm"], strict=True)
            seen = [abs(a.p_fail - b.p_fail) for a, b in pairs if a.p_fail is not None and b.p_fail is not None]
            found[label] = {
                **figures,
                "problems": len(requests),
                "differ": [asdict(one) for one in apart],
                "all_near_ties": all(one.near_tie for one in apart),
                "p_fail_differs_by": max(seen, default=None),
            }
    return found


def evaluated(path: Path, given: argparse.Namespace) -> dict[str, object]:
    """Seconds in which a run's conditions are answered and graded: token by token, as ``evaluate`` does it, and by vLLM."""
    from benchmarks.speed import evaluating
    from trimtab.evaluation.runner import read_response_ids
    from trimtab.sampling import TRANSFORMERS, VllmEngine, VllmOptions
    from trimtab.study import Study

    found: dict[str, object] = {}
    answers: dict[str, dict[str, tuple[int, ...]]] = {}
    with tempfile.TemporaryDirectory() as scratch, Study.from_toml(path) as study:
        work = evaluating.demo_work(study, given.problems)
        names = [each.condition.name for each in work.asked]
        with VllmEngine(VllmOptions(enforce_eager=given.eager)) as engine:
            first = replace(work, asked=[each._replace(problems=each.problems[:8]) for each in work.asked[:2]])
            evaluating.evaluate(first, Path(scratch, "start"), plainly=True, generator=engine)
            for way, generator in (("plain", TRANSFORMERS), ("ours", TRANSFORMERS), ("vllm", engine)):
                folder, began = Path(scratch, way), time.perf_counter()
                evaluating.evaluate(work, folder, plainly=way != "ours", generator=generator)
                found[way] = round(time.perf_counter() - began, 2)
                names = [each.condition.name for each in work.asked]
                answers[way] = {
                    f"{name}, {i}": ids for name in names for i, ids in (read_response_ids(folder / name) or {}).items()
                }
                print(f"{len(names)} conditions, {way:<6} {found[way]:>7} s", flush=True)
    differ = sum(ids != answers["vllm"][name] for name, ids in answers["plain"].items())
    print(f"{differ} of {len(answers['plain'])} responses of vLLM differ from the plain way's")
    return {**found, "conditions": len(names), "responses": len(answers["plain"]), "differ": differ}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="Of each engine; only one runs at a time.")
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--models", nargs="*", choices=[LARGE, BUNDLED], default=[LARGE, BUNDLED])
    parser.add_argument("--eager", action="store_true", help="Compile nothing: to try this script, not to measure.")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(json.loads(given.worker))
        return
    figures: dict[str, object] = {"compiled": not given.eager, "requests": given.requests, "tokens": given.tokens}
    with tempfile.TemporaryDirectory() as scratch:
        folder, tokenizer = Path(scratch), byte_tokenizer()
        random_qwen3(tokenizer, 12, 768, 2304).save_pretrained(folder / LARGE)
        tokenizer.save_pretrained(folder / LARGE)
        models = {LARGE: str(folder / LARGE), BUNDLED: str(resolve("testbed:reasoner"))}
        for label in given.models:
            figures[label] = speed(label, models[label], folder, given)
    if given.run is not None:
        figures["verdict"] = verdict(given.run, given)
        figures["evaluate"] = evaluated(given.run, given)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
