"""Hooks of ``make site``: pages made of the README, the notebooks, the examples and the modules, and links between them.

Markdown that stands outside docs/ keeps links that work where it stands; each is turned here into the page of the site.
"""

import ast
import html
import posixpath
import re
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "SECURITY.md": "security.md",
}
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
UNDOCUMENTED = ("cli", "vllm_plugin", "testbed", "tasks/sandbox", "report/look")
"""Not in the API reference: the command line has its own page, and nobody imports the others."""
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^(```.*?^```|~~~.*?^~~~)", re.M | re.S)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the menus of notebooks and of the API reference."""
    filled = {
        "Notebooks": [{_title(path): f"notebooks/{path.stem}.md"} for path in NOTEBOOKS],
        "API": ["api/index.md", *_api_menu(modules())],
    }
    config.nav = [
        {title: filled.get(title, entries) for title, entries in item.items()} if isinstance(item, dict) else item
        for item in config.nav or []
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made of files outside docs/."""
    for source, page in PAGES.items():
        content = _linked((ROOT / source).read_text(), source, page)
        head = "---\nhide: [navigation]\n---\n\n" if page == "index.md" else ""
        files.append(File.generated(config, page, content=head + content))
    for path in NOTEBOOKS:
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook_page(path)))
        files.append(File.generated(config, f"examples/{path.name}", content=path.read_bytes()))
    for path in [*(ROOT / "examples").glob("*.toml"), *(ROOT / "examples").glob("*.jsonl")]:
        files.append(File.generated(config, f"examples/{path.name}", content=path.read_bytes()))
    named = modules()
    for name in named:
        files.append(File.generated(config, f"api/{name}.md", content=f"# {name}\n\n::: {name}\n"))
    files.append(File.generated(config, "api/index.md", content=_api_index(named)))
    if more := sorted({file.src_uri for file in files.documentation_pages()} - set(_pages_in(config.nav))):
        config.nav = [*(config.nav or []), {"More": more}]
    return files


def _pages_in(menu: object) -> list[str]:
    """The pages that a menu, or a part of one, names."""
    if isinstance(menu, str):
        return [menu]
    parts = menu.values() if isinstance(menu, dict) else menu or []
    return [page for part in parts for page in _pages_in(part)]


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrite the links of a page of docs/ that lead out of it."""
    uri = page.file.src_uri
    return markdown if page.file.generated_by else _linked(markdown, f"docs/{uri}", uri)


def modules() -> dict[str, str]:
    """The documented modules with the first line of their docstrings."""
    found = {}
    for path in sorted((ROOT / "src" / "trimtab").rglob("*.py")):
        inner = path.relative_to(ROOT / "src" / "trimtab").as_posix()
        if inner.startswith(UNDOCUMENTED):
            continue
        name = ".".join(["trimtab", *inner.removesuffix(".py").removesuffix("__init__").strip("/").split("/")]).strip(".")
        found[name] = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    return found


def notebook_page(path: Path) -> str:
    """A notebook with the outputs that it was committed with."""
    notebook = nbformat.read(path, as_version=4)
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(_linked(cell.source, f"examples/{path.name}", f"notebooks/{path.stem}.md"))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts += [_output(output) for output in cell.outputs]
    parts.insert(1, f"[Download this notebook](../examples/{path.name}){{ .md-button }}")
    return "\n\n".join(part for part in parts if part)


def _output(output: nbformat.NotebookNode) -> str:
    """What a cell printed or showed, as HTML that Markdown leaves alone."""
    data = output.get("data", {})
    if "image/svg+xml" in data:
        return f'<div class="output">{_one_line(data["image/svg+xml"])}</div>'
    if "text/html" in data:
        return f'<div class="output">{_one_line(data["text/html"])}</div>'
    text = data.get("text/plain", output.get("text", ""))
    return f'<pre class="output"><code>{html.escape(text.rstrip())}</code></pre>'.replace("\n", "&#10;")


def _one_line(text: str) -> str:
    return re.sub(r"\n\s*", " ", text)


def _title(path: Path) -> str:
    first = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0]
    return first.removeprefix("# ")


def _api_menu(named: dict[str, str]) -> list[dict[str, object]]:
    """Every module under its package, packages and single modules in the order of the alphabet."""
    menu: dict[str, list[str]] = {}
    for name in named:
        menu.setdefault(".".join(name.split(".")[:2]), []).append(f"api/{name}.md")
    return [{package: pages if len(pages) > 1 else pages[0]} for package, pages in menu.items()]


def _api_index(named: dict[str, str]) -> str:
    rows = "\n".join(f"| [{name}]({name}.md) | {text.replace('|', '&#124;')} |" for name, text in named.items())
    intro = "Made of the docstrings. `import trimtab as tt` gives the names that most programs need."
    return f"# API reference\n\n{intro}\n\n| module | |\n|---|---|\n{rows}\n"


def _linked(text: str, source: str, page: str) -> str:
    """The text of a file of the repository with the links that lead to other files of it turned into links of the site."""

    def target(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        to = PAGES.get(path)
        if to is None and path.startswith("examples/") and path.endswith(".ipynb"):
            to = f"notebooks/{Path(path).stem}.md"
        if to is None:
            to = path.removeprefix("docs/")
        return posixpath.relpath(to, posixpath.dirname(page) or ".") + (found[2] or "")

    pieces = FENCE.split(text)
    return "".join(piece if FENCE.match(piece) else LINK.sub(target, piece) for piece in pieces)
