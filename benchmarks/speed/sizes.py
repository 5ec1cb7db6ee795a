"""How much of everything a run measures."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of one run.

    Args:
        layers, width, d_ff: of the model called 12x768, a Qwen3 with random weights.
        pairs: repetitions of each pair.
        batch_tokens: budget of a recording's batch.
        traces, shortest, longest: of the recorded traces of that model; lengths spread evenly.
        testbed_traces: of the bundled model, 40 to 110 tokens each.
        steps: decode steps a repetition.
        batches, ks: batch sizes and numbers of steered neurons.
        compiled: rows and tokens of the forward that is compiled.
        sampled, new_tokens: chains of ``sample``, and how long they may get.
        published_traces, published_tokens: of the published way.
        loop_tokens: tokens of each trace whose per-neuron loop is run; the rest of that loop's time is extrapolated.
        demo: train, validation and test problems of the demo whose conditions are evaluated.
        demo_strengths: of its grid.
        evaluated: problems of the other models whose conditions are evaluated; up to ``new_tokens`` are generated.
        few_shot_tokens: generated after solved examples.
        real_problems: of the model that is given, if one is.
        factors: each dimension of a curve is its base times these.
        recorded_base: traces, their tokens, layers and d_ff of the curves of ``record``.
        evaluated_base: problems, conditions and response tokens of those of ``evaluate``.
        ranked_base: traces and d_ff of those of ``rank``.
        packed: tokens of the rows that are packed into one.
        prefixes: traces of one problem, tokens of their prompt and of each response, where the prompt is forwarded once.
        ranked_traces, ranked_layers, ranked_d_ff: of the synthetic moments whose ranking is measured.
        ranked_at_most: this many of these traces are written; the time of the others is extrapolated.
    """

    layers: int = 12
    width: int = 768
    d_ff: int = 2048
    pairs: int = 5
    batch_tokens: int = 8_192
    traces: int = 6
    shortest: int = 300
    longest: int = 900
    testbed_traces: int = 400
    steps: int = 24
    batches: tuple[int, ...] = (1, 8, 32)
    ks: tuple[int, ...] = (5, 50, 500)
    compiled: tuple[int, int] = (8, 256)
    sampled: int = 64
    new_tokens: int = 64
    published_traces: int = 12
    published_tokens: int = 2_000
    loop_tokens: int = 16
    demo: tuple[int, int, int] = (500, 400, 200)
    demo_strengths: tuple[float, ...] = (1.5, 2.0, 4.0)
    evaluated: int = 8
    few_shot_tokens: int = 24
    real_problems: int = 16
    factors: tuple[float, ...] = (0.25, 1, 4, 16)
    recorded_base: tuple[int, int, int, int] = (8, 512, 4, 512)
    evaluated_base: tuple[int, int, int] = (32, 4, 32)
    ranked_base: tuple[int, int] = (512, 1_024)
    packed: tuple[int, ...] = (1_000, 980, 960, 940)
    prefixes: tuple[tuple[int, int, int], ...] = ((4, 120, 1_000), (2, 120, 4_000))
    ranked_traces: int = 10_000
    ranked_at_most: int = 10_000
    ranked_layers: int = 28
    ranked_d_ff: int = 6_144

    def with_(self, *, pairs: int | None, ranked_at_most: int | None, demo_problems: int | None) -> "Sizes":
        """The same with what the command line sets."""
        train, validation, test = self.demo
        return replace(
            self,
            pairs=pairs or self.pairs,
            ranked_at_most=ranked_at_most or self.ranked_at_most,
            demo=(train, validation, demo_problems or test),
        )


FULL = Sizes()
QUICK = Sizes(
    layers=2,
    width=128,
    d_ff=256,
    pairs=2,
    batch_tokens=512,
    traces=4,
    shortest=30,
    longest=90,
    testbed_traces=20,
    steps=6,
    batches=(1, 8, 32),
    ks=(50,),
    compiled=(2, 8),
    sampled=8,
    new_tokens=8,
    published_traces=2,
    published_tokens=40,
    loop_tokens=4,
    demo=(40, 20, 6),
    demo_strengths=(2.0,),
    evaluated=3,
    few_shot_tokens=6,
    real_problems=3,
    factors=(1, 2),
    recorded_base=(2, 24, 1, 32),
    evaluated_base=(3, 2, 6),
    ranked_base=(16, 64),
    packed=(20, 15),
    prefixes=((2, 8, 20),),
    ranked_traces=64,
    ranked_layers=2,
    ranked_d_ff=512,
)
"""For a test that everything runs: its figures say nothing."""
