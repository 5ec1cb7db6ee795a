"""Write docs/cli.md from the commands' own help; ``--check`` fails when the file is out of date."""

import argparse
import sys
from pathlib import Path

import click

from trimtab.cli.main import COMMANDS, trimtab

PAGE = Path(__file__).parent / "cli.md"
HEADER = """# Command line

Written by `make docs` from the commands' own help. Data goes to stdout, everything else to stderr. Exit codes: 0 ok, 1 failure,
2 usage, 130 Ctrl-C.
"""


def page() -> str:
    """The whole page: the group, then every command in the order of the line."""
    context = click.Context(trimtab, info_name="trimtab", terminal_width=100, **trimtab.context_settings)
    sections = [_section("trimtab", trimtab.get_help(context))]
    for name in COMMANDS:
        _, command, _ = trimtab.resolve_command(context, [name])
        inner = click.Context(command, info_name=name, parent=context, terminal_width=100)
        sections.append(_section(f"trimtab {name}", command.get_help(inner)))
        for sub, subcommand in command.commands.items() if isinstance(command, click.Group) else ():
            below = click.Context(subcommand, info_name=sub, parent=inner, terminal_width=100)
            sections.append(_section(f"trimtab {name} {sub}", subcommand.get_help(below)))
    return "\n".join([HEADER, *sections])


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n```\n{text.rstrip()}\n```\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.write_text(page())
    elif not PAGE.is_file() or PAGE.read_text() != page():
        sys.exit(f"{PAGE.name} does not match the commands' help; run `make docs` and commit the file")


if __name__ == "__main__":
    main()
