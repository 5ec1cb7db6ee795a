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
        lengths: tokens of one trace whose time and memory are measured, on a model of 2 layers.
        counts: numbers of traces of 256 tokens, the same.
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
    lengths: tuple[int, ...] = (256, 1_024, 4_096, 16_384, 32_768)
    counts: tuple[int, ...] = (1, 4, 16, 64)
    packed: tuple[int, ...] = (1_000, 980, 960, 940)
    prefixes: tuple[tuple[int, int, int], ...] = ((4, 120, 1_000), (2, 120, 4_000))
    ranked_traces: int = 10_000
    ranked_at_most: int = 10_000
    ranked_layers: int = 28
    ranked_d_ff: int = 6_144

    def with_(self, *, pairs: int | None, ranked_at_most: int | None) -> "Sizes":
        """The same with what the command line sets."""
        return replace(self, pairs=pairs or self.pairs, ranked_at_most=ranked_at_most or self.ranked_at_most)


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
    batches=(1, 32),
    ks=(50,),
    compiled=(2, 8),
    sampled=8,
    new_tokens=8,
    published_traces=2,
    published_tokens=40,
    loop_tokens=4,
    lengths=(64,),
    counts=(2,),
    packed=(20, 15),
    prefixes=((2, 8, 20),),
    ranked_traces=64,
    ranked_layers=2,
    ranked_d_ff=512,
)
"""For a test that everything runs: its figures say nothing."""
