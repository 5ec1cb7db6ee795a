"""Write docs/models.md: every causal architecture of the installed transformers, proved on a tiny random model or refused.

``python docs/make_models.py`` takes some ten minutes on one core. ``--check`` fails, and writes nothing, if an architecture that
the page calls proved is no longer.
"""

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trimtab.errors import ModelError
from trimtab.model import LanguageModel, check_model
from trimtab.sampling import way_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from causal_families import NAMED, VOCABULARY, named_model, tiny_model  # pyright: ignore[reportMissingImports]  # of tests/helpers

PAGE = Path(__file__).with_name("models.md")
SECONDS = 60


def outcome(family: str, build: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> tuple[str, str, str]:
    """Result, the neurons of its layers, and the reason or the way of sampling."""
    try:
        hf_model = build()
        if getattr(hf_model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
            hf_model.set_attn_implementation("eager")  # as open_model does
    except Exception as error:  # noqa: BLE001 -- whatever a configuration of this family needs beyond the usual sizes
        return "not tried", "", f"no tiny model: {type(error).__name__}: {first_line(error)}"
    try:
        model = LanguageModel.of(hf_model, tokenizer, family)
        diagnosis = check_model(model)
        if not diagnosis.ok:
            faults = [*diagnosis.faults, *(fault for layer in diagnosis.layers for fault in layer.faults)]
            return "refused", "", faults[0]
        return "proved", neurons_of(model), str(way_of(model))
    except ModelError as error:
        return "refused", "", first_line(error)
    except Exception as error:  # noqa: BLE001 -- a fault of the model's own code, which the page names
        return "fails", "", f"{type(error).__name__}: {first_line(error)}"


def neurons_of(model: LanguageModel) -> str:
    """Of what kind its layers are."""
    kinds = dict.fromkeys("experts" if layer.sparse else "dense" if layer.width else "none" for layer in model.layout.layers)
    widths = {layer.width for layer in model.layout.layers if layer.width and not layer.sparse}
    text = " and ".join(kinds) + (" of several widths" if len(widths) > 1 else "")
    unseen = ", ".join(one.partition(" of ")[0].rpartition(".")[2] for one in model.layout.unseen)
    return text + (f"; not `{unseen}`" if unseen else "")


def first_line(error: Exception) -> str:
    """The first line of a message, short and without what breaks a table."""
    return (str(error).strip().splitlines() or [""])[0].replace("|", "/")[:160]


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Every family in turn; a notice of each goes to stderr."""
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0", pad_token="w0", eos_token="w2")

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, late)
    builds: dict[str, Callable[[], PreTrainedModel]] = {
        name: partial(tiny_model, name) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    }
    for family, build in sorted({**builds, **{name: partial(named_model, name) for name in NAMED}}.items()):
        signal.alarm(SECONDS)
        row = (family, *outcome(family, build, tokenizer))
        signal.alarm(0)
        print(*row, sep=" | ", file=sys.stderr, flush=True)
        yield row


def main() -> None:
    """Run over all families and write the page, or compare with it."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = list(rows())
    proved = {row[0] for row in found if row[1] == "proved"}
    if "--check" in sys.argv:
        before = {line.split("`")[1] for line in PAGE.read_text().splitlines() if "| proved |" in line}
        if lost := sorted(before - proved):
            raise SystemExit(f"no longer proved: {', '.join(lost)}")
        return
    counts = {result: sum(row[1] == result for row in found) for result in ("proved", "refused", "fails", "not tried")}
    lines = [
        "# Models",
        "",
        "Written by `python docs/make_models.py`; do not edit. Each causal architecture of transformers",
        f"{transformers.__version__} was built small and random, some in several variants, and opened, checked and sampled as",
        "any model is.",
        "`proved` means that every layer was hooked, that an attachment did in a padded, cached generation what a plain",
        "hook does, and that the sampler gave each row what it gives the row alone. `refused` ends in the message shown.",
        "Neurons say of what kind the layers are (dense, experts, none), and which FFNs are neither recorded nor steered.",
        "`trimtab doctor MODEL` proves the same on real weights.",
        "",
        ", ".join(f"{count} {result}" for result, count in counts.items()) + ".",
        "",
        "| architecture | result | neurons | sampling, or reason |",
        "|---|---|---|---|",
        *(f"| `{family}` | {result} | {by} | {why} |" for family, result, by, why in found),
    ]
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
