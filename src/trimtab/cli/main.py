"""The entry point: a group whose commands are imported when they are called, so that ``--help`` is quick."""

import errno
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from trimtab import __version__
from trimtab.display import printable
from trimtab.errors import TrimtabError

GROUPS: dict[str, dict[str, tuple[str, str, str]]] = {
    "Find and judge": {
        "demo": ("trimtab.cli.demo", "demo", "Run the whole pipeline on the bundled reasoner."),
        "run": ("trimtab.cli.run", "run_command", "Run the whole pipeline from a settings file."),
        "stage": ("trimtab.cli.run", "stage_command", "Bring one stage of a run up to date."),
        "experiment": ("trimtab.cli.run", "experiment_command", "Answer one question about what a run found."),
        "evaluate": ("trimtab.cli.evaluate", "evaluate_command", "Evaluate a steering on any task, controls included."),
        "compare": ("trimtab.cli.compare", "compare", "Judge two result files of any tool by a paired test."),
    },
    "Steer and deploy": {
        "generate": ("trimtab.cli.generate", "generate", "Generate with a steering, side by side with the bare model."),
        "import": ("trimtab.cli.import_neurons", "import_command", "Make an artifact of neurons that others found."),
        "export": ("trimtab.cli.export", "export_command", "Export to LoRA, IA3, merged weights, GGUF or a list."),
        "verify": ("trimtab.cli.verify", "verify_command", "Compare an export in its own engine with the hooks."),
        "verify-serving": (
            "trimtab.cli.verify_serving",
            "verify_serving_command",
            "Prove that vLLM here steers as the hooks do.",
        ),
        "serve": ("trimtab.cli.serve", "serve_command", "Serve a model over vLLM's OpenAI server, steered by request."),
    },
    "Look and check": {
        "view": ("trimtab.cli.view", "view_command", "Look at every pair of responses of a run, token by token."),
        "show": ("trimtab.cli.show", "show", "Print a steering artifact."),
        "doctor": ("trimtab.cli.doctor", "doctor", "Prove that a model can be recorded and steered."),
        "grade": ("trimtab.cli.grade", "grade", "Grade the answers of a file."),
        "tasks": ("trimtab.cli.tasks", "tasks", "List benchmarks, show their prompts, look for leaks between splits."),
        "cache": ("trimtab.cli.cache", "cache_command", "List the results of a run with their sizes, and prune them."),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


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
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, _, text) in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trimtab")
def trimtab() -> None:
    """Find the few neurons that decide whether a model reasons correctly, steer them only when it is about to fail, and test
    whether it helped.
    """


def main() -> None:
    """Run the command line. Exit codes: 0 ok, 1 failure, 2 usage, 130 Ctrl-C."""
    _open_standard_streams()
    if "--quiet" in sys.argv or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("huggingface_hub").propagate = False  # it prints by itself; twice is once too often
    try:
        trimtab.main(prog_name="trimtab", standalone_mode=False)
        sys.stdout.flush()
    except TrimtabError as error:
        _fail(error.told())
    except click.exceptions.Abort:
        print("stopped; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except OSError as error:
        # what the library reads and writes has errors of its own; this is the terminal, or what the output goes to
        if error.filename is not None or error.errno not in _OUTPUT_ERRORS:
            raise
        _drop_output()
        _fail(f"error: the output cannot be written: {error.strerror or error}; results that were finished are kept")
    except MemoryError:
        _fail("error: out of memory; give fewer tokens a batch (sampling.batch_tokens, recording.batch_tokens) or a smaller file")


_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class _Printable(logging.Formatter):
    """Lines of the log as a terminal may be shown them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _fail(message: str) -> NoReturn:
    print(printable(message), file=sys.stderr)
    sys.exit(1)


def _open_standard_streams() -> None:
    """Where stdin, stdout or stderr is closed, open nothing in its place, lest a file of a run takes its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # for the life of the process
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def _drop_output() -> None:
    """What is still to be written to stdout goes nowhere, so that the end of the process does not try again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
