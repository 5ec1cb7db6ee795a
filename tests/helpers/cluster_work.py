"""The work of the live tests: what a run does to a few problems, stage by stage, as jobs."""

from pathlib import Path

from steering_samples import CoinGrader, logistic, neuron_set
from tiny_testbed import settings, some_problems
from trimtab.evaluation.runner import Condition, condition_job
from trimtab.execution import Executor, Job
from trimtab.model import LanguageModel
from trimtab.progress import silent
from trimtab.recording import RecordingSettings, StreamedParts, record_job
from trimtab.sampling import read_traces, sample_job
from trimtab.steering import Steering
from trimtab.traces import Split

FOUND, TESTED = some_problems(12), some_problems(10, Split.TEST)
SAMPLING, GREEDY = settings(n=2, temperature=1.0, batch_tokens=350), settings()
RECORDING = RecordingSettings(batch_tokens=250)


def first_jobs(model: LanguageModel, folder: Path) -> list[Job]:
    """Sampled traces with their moments, and two conditions of an evaluation, one of them gated."""
    steering = Steering.of(neuron_set(model.identity), 1.0, gate=logistic())
    moments = StreamedParts(model, RECORDING, folder / "streamed")
    return [
        sample_job(model, FOUND, SAMPLING, folder / "traces", moments=moments),
        condition_job(model, Condition("unsteered"), TESTED, GREEDY, CoinGrader(), folder / "unsteered"),
        condition_job(model, Condition("gated", steering, "auto"), TESTED, GREEDY, CoinGrader(), folder / "gated"),
    ]


def record_jobs(model: LanguageModel, folder: Path) -> list[Job]:
    """The moments of the sampled traces, from a pass of their own."""
    traces = [trace for trace in read_traces(folder / "traces") if len(trace.response_ids) > 1]
    return [record_job(model, traces, RECORDING, folder / "moments")]


def do_all(model: LanguageModel, folder: Path, executor: Executor) -> None:
    """Both, one after the other."""
    executor.run(model, first_jobs(model, folder), silent)
    executor.run(model, record_jobs(model, folder), silent)
