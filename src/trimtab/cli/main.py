"""The entry point: a group whose commands are imported when they are called, so that ``--help`` is quick."""

import importlib
import logging
import os
import sys

import click

from trimtab import __version__
from trimtab.errors import TrimtabError

STAGE_HELP = {
    "problems": "Load the problems of a run.",
    "sample": "Sample traces for the train split, or import those of a file.",
    "grade": "Give every trace a verdict and its reason.",
    "contrast": "Choose the correct and incorrect traces to compare.",
    "record": "Record the moments of every FFN neuron.",
    "rank": "Rank the neurons by each criterion.",
    "gate": "Fit the gate that predicts failure from the question alone.",
    "tune": "Choose criterion, K and strength on the validation split.",
    "evaluate": "Open the test split: every condition on the same problems.",
    "experiments": "Run the experiments of the configuration.",
    "report": "Write report.html and report.json.",
}
EXPERIMENT_HELP = {
    "ablate": "What is each part of the method worth? Parts left out one at a time, and other criteria.",
    "sweep": "How do K, strength, threshold, scope and layers matter? On the validation split; the test split stays closed.",
    "transfer": "Do neurons and gate of one domain help on another, and those of hard problems on easy ones?",
    "causal": "Does the model need the neurons? Suppress them, as many others, amplify them.",
    "domains": "Which neurons serve one domain alone? Suppress each domain's and watch all domains.",
    "stability": "Would other problems have found the same neurons? Halves, bootstrap, sizes, permuted labels.",
    "transfer-model": "Carry the neurons to a fine-tuned or another model.",
    "monitor": "Warn while the model writes, and see what steering does to everything else.",
    "analyse": "What the neurons are: layers, ratios, probes, vocabulary, drift, top tokens.",
}
COMMANDS = {
    "demo": ("trimtab.cli.demo", "demo", "Run the whole pipeline on the bundled reasoner."),
    "run": ("trimtab.cli.run", "run_command", "Run the whole pipeline from a configuration."),
    "generate": ("trimtab.cli.generate", "generate", "Generate with a steering, side by side with the bare model."),
    "show": ("trimtab.cli.show", "show", "Print a steering artifact."),
    "import": ("trimtab.cli.import_neurons", "import_command", "Make an artifact of a list of neurons that others found."),
    "export": ("trimtab.cli.export", "export_command", "Write a steering as a LoRA, IA3, merged weights, GGUF or a list."),
    "verify": ("trimtab.cli.verify", "verify_command", "Prove an export in its own engine, against the hooks."),
    "serve": ("trimtab.cli.serve", "serve_command", "Serve a model over vLLM's OpenAI server, steered by request."),
    "doctor": ("trimtab.cli.doctor", "doctor", "Prove that a model can be recorded and steered."),
    "tasks": ("trimtab.cli.tasks", "tasks", "List the benchmarks, show their prompts, look for leaks between splits."),
    **{stage: ("trimtab.cli.stages", f"{stage}_command", text) for stage, text in STAGE_HELP.items()},
    **{name: ("trimtab.cli.experiments", f"{name.replace('-', '_')}_command", text) for name, text in EXPERIMENT_HELP.items()},
    "evaluate": ("trimtab.cli.evaluate", "evaluate_command", STAGE_HELP["evaluate"]),
    "compare": ("trimtab.cli.compare", "compare", "A paired verdict on two result files, whichever tool wrote them."),
}


class LazyGroup(click.Group):
    """Lists commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        return getattr(importlib.import_module(module), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trimtab")
def trimtab() -> None:
    """Find the few neurons that decide whether a model reasons right, steer them only when it is about to fail, and test whether
    it helped.
    """


def main() -> None:
    """Run the command line. Exit codes: 0 ok, 1 failure, 2 usage, 130 Ctrl-C."""
    if "--quiet" in sys.argv or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("huggingface_hub").propagate = False  # it prints by itself; twice is once too often
    try:
        trimtab.main(prog_name="trimtab", standalone_mode=False)
    except TrimtabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except click.exceptions.Abort:
        print("stopped; what was finished is kept, run the same command with --resume to go on", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
