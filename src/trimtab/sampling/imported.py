"""Traces that were made elsewhere: JSON lines or Parquet, with AdaRAS's field names among the accepted ones.

Accepted fields: ``question``; the response in ``thinking`` and ``answer_content`` (AdaRAS), or in ``response``; the gold answer
in ``gold_answer``; optional ``id``, ``_id``, and a label in a column of the user's choice (AdaRAS: ``is_good``). Where
``gold_answer`` stands beside ``answer``, ``answer`` is the extracted one and is not used.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from trimtab.errors import InputError, MismatchError
from trimtab.model import LanguageModel
from trimtab.tasks.files import Row, read_rows, text_field
from trimtab.tasks.grading import read_label
from trimtab.tasks.loading import problems_of
from trimtab.tasks.prompts import CHAT, Prompt, render_prompt
from trimtab.traces import Problem, Split, Trace


def import_traces(
    path: Path, model: LanguageModel, *, prompt: Prompt = CHAT, max_tokens: int | None = None
) -> tuple[list[Problem], list[Trace]]:
    """Read the problems and traces of a file and tokenise their text for this model.

    Text is tokenised again. Token ids (``prompt_ids``, ``response_ids``) are taken as they are only if the row names this very
    tokenizer in ``tokenizer`` (its fingerprint). ``max_tokens`` cuts a longer response; a cut trace has ``finish = "length"``.

    Raises:
        InputError: unreadable file, missing fields.
        MismatchError: token ids from another tokenizer.
    """
    rows = list(read_rows(path))
    traces = [
        _trace(row, f"{path}, row {number}", problem_id, sample, model, prompt, max_tokens)
        for number, (row, (problem_id, sample)) in enumerate(zip(rows, _addresses(rows), strict=True), start=1)
    ]
    return problems_of(rows, str(path), split=Split.TRAIN), traces


def read_labels(path: Path, column: str) -> dict[str, bool]:
    """A binary column of a trace file by trace id: the user's own verdict, or the quality of the steps.

    Raises:
        InputError: the column is missing somewhere, or a value is not binary.
    """
    rows = list(read_rows(path))
    missing = sum(column not in row for row in rows)
    if missing:
        raise InputError(f"{missing} of {len(rows)} rows of {path} have no column {column!r}; the first has {', '.join(rows[0])}")
    labels = {}
    for row, (problem_id, sample) in zip(rows, _addresses(rows), strict=True):
        trace_id = f"{problem_id}/{sample}"
        labels[trace_id] = read_label(row[column], trace_id)
    return labels


def _addresses(rows: list[Row]) -> list[tuple[str, int]]:
    """(problem id, sample number) of every row: the rows of a problem are its samples in order."""
    counters: Counter[str] = Counter()
    addresses = []
    for number, row in enumerate(rows, start=1):
        problem_id = text_field({"number": number, **row}, ("id", "number"), "the row")
        addresses.append((problem_id, counters[problem_id]))
        counters[problem_id] += 1
    return addresses


def _trace(
    row: Row, where: str, problem_id: str, sample: int, model: LanguageModel, prompt: Prompt, max_tokens: int | None
) -> Trace:
    if "response_ids" in row:
        prompt_ids, response = _given_ids(row, where, model)
        text = model.tokenizer.decode(list(response))
    else:
        prompt_ids = render_prompt(model.tokenizer, text_field(row, ("question", "problem", "prompt"), where), prompt)
        text = _response_text(row, where, model.tokenizer, prompt)
        response = tuple(model.tokenizer.encode(text, add_special_tokens=False))
    if not response:
        raise InputError(f"{where} has an empty response; remove the row")
    cut = max_tokens is not None and len(response) > max_tokens
    return Trace(
        f"{problem_id}/{sample}", problem_id, sample, prompt_ids, response[:max_tokens], str(text), "length" if cut else "stop"
    )


def _response_text(row: Row, where: str, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """What the model would have written after its prompt, whose template may have opened or closed the thinking already."""
    question = text_field(row, ("question", "problem", "prompt"), where)
    thinks = prompt.style == "chat" and "<think>" in str(tokenizer.chat_template)
    before = _chat(tokenizer, question, prompt) if thinks else ""
    opened, closed = (before.rstrip().endswith(tag) for tag in ("<think>", "</think>"))
    thinking, answer = row.get("thinking"), row.get("answer_content") or ""
    if thinking is None:
        response = text_field(row, ("response", "completion", "text"), where)
        if opened and response.lstrip().startswith("<think>"):
            return response.lstrip().removeprefix("<think>").removeprefix("\n" if before.endswith("\n") else "")
        return response
    if not thinks:
        return f"{thinking}</think>{answer}" if answer else str(thinking)
    if closed and thinking:
        raise InputError(
            f'{where} has thinking, but the prompt ends it before the response; import with prompt.thinking = "default"'
        )
    if closed:
        return str(answer)
    template = str(tokenizer.chat_template)
    if not ("<think>\n" in template or "<think>\\n" in template):  # a template without line breaks around the thinking
        return ("" if opened else "<think>") + (f"{thinking}</think>{answer}" if answer else str(thinking))
    start = ("" if before.endswith("\n") else "\n") if opened else "<think>\n"
    return f"{start}{str(thinking).strip(chr(10))}" + (f"\n</think>\n\n{str(answer).lstrip(chr(10))}" if answer else "")


def _chat(tokenizer: PreTrainedTokenizerBase, question: str, prompt: Prompt) -> str:
    """The text of the prompt, up to where the response starts."""
    return str(tokenizer.decode(list(render_prompt(tokenizer, question, prompt))))


def _given_ids(row: Row, where: str, model: LanguageModel) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if row.get("tokenizer") != model.tokenizer_fingerprint:
        raise MismatchError(
            f"{where} brings token ids of tokenizer {row.get('tokenizer')!r}, the model's is {model.tokenizer_fingerprint!r}; "
            "ids mean other words there. Give the text instead (question and response), it is tokenised again",
            code="other-tokenizer",
        )
    prompt_ids, response_ids = (tuple(int(i) for i in _ids(row, name, where)) for name in ("prompt_ids", "response_ids"))
    return prompt_ids, response_ids


def _ids(row: Row, name: str, where: str) -> Sequence[int]:
    ids = row.get(name)
    if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
        raise InputError(f"{where}: {name} must be a list of token ids")
    return ids
