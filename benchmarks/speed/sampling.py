"""(c) Recording while sampling over sampling: the same responses, with their moments summed up on the way."""

import tempfile
from pathlib import Path

from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import Spent, in_turn, timed
from trimtab.model import LanguageModel
from trimtab.recording import RecordingSettings, StreamedParts
from trimtab.sampling import SamplingSettings, sample_traces
from trimtab.traces import Problem, Split

ROWS = 32


def measure(model: LanguageModel, sizes: Sizes) -> dict[str, object]:
    """Seconds with recording over seconds without, both with what they write to disk."""
    problems = [
        Problem(f"p{i}", f"What is {i} times {i + 7}, and why?", "", Split.TRAIN) for i in range(max(1, sizes.sampled // 4))
    ]
    # a prompt of this template is about 90 bytes, which are its tokens
    settings = SamplingSettings(
        n=4, temperature=1.0, max_new_tokens=sizes.new_tokens, batch_tokens=ROWS * (sizes.new_tokens + 96)
    )

    def sample(record: bool) -> Spent:
        with tempfile.TemporaryDirectory() as folder:
            moments = StreamedParts(model, RecordingSettings(), Path(folder, "moments")) if record else None
            return timed(lambda: sample_traces(model, problems, settings, Path(folder, "traces"), moments=moments))

    pairs = in_turn(lambda: sample(True), lambda: sample(False), sizes.pairs)
    return {"what": "seconds of recording while sampling over those of sampling", "chains": 4 * len(problems), **pairs.to_json()}
