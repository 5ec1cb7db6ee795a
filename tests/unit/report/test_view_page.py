"""The page of a view: what is in it, what a browser may run of it, and how large it becomes."""

import base64
import gzip
import hashlib
import json
import re

import numpy as np
import pytest

from trimtab.report.view_page import SIZE_LIMIT, render_view, safe_json
from view_sample import HOSTILE, KINDS, make_view

SCRIPT = re.compile(r'<script(?: type="(?P<kind>[^"]+)" id="(?P<id>[^"]+)")?>(?P<text>.*?)</script>', re.S)


def parts(page: str) -> dict[str, str]:
    return {match["id"] or "code": match["text"] for match in SCRIPT.finditer(page)}


def meta(page: str) -> dict:
    return json.loads(parts(page)["meta"])


def chunk(page: str, number: int) -> tuple[dict, bytes]:
    data = gzip.decompress(base64.b64decode(parts(page)[f"chunk-{number}"]))
    length = int.from_bytes(data[:4], "little")
    return json.loads(data[4 : 4 + length]), data[4 + length :]


def test_the_policy_allows_this_script_and_style_and_no_request() -> None:
    page = render_view(make_view())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'none'"
    for name, text in (("script-src", parts(page)["code"]), ("style-src", re.search(r"<style>(.*?)</style>", page, re.S)[1])):  # type: ignore[index]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "connect-src &#39;self&#39;" in render_view(make_view(), live=True)


def test_hostile_text_ends_no_element_and_comes_back_as_it_was() -> None:
    page = render_view(make_view(hostile=HOSTILE))
    assert [match["id"] for match in SCRIPT.finditer(page)] == ["meta", "chunk-0", "chunk-1", "chunk-2", None]
    assert "onerror" not in page.replace("\\u003cimg src=x onerror=alert(1)\\u003e", "").replace(
        "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;", ""
    )
    assert meta(page)["model"] == f"a model{HOSTILE}"
    assert chunk(page, 0)[0]["0"]["gold"] == f"8{HOSTILE}"


def test_json_in_a_script_element_holds_no_markup_and_no_line_separator() -> None:
    text = safe_json({HOSTILE: HOSTILE})
    assert not set("<>&\u2028\u2029\u202e\x00") & set(text)
    assert json.loads(text) == {HOSTILE: HOSTILE}


def test_flags_count_what_the_verdict_counts() -> None:
    flags = meta(render_view(make_view(20)))["flags"]
    kinds = [(bool(base & 1), bool(gated & 1)) for base, gated in zip(flags["unsteered"], flags["gated"], strict=True)]
    assert kinds == [KINDS[i % 4] for i in range(20)]
    assert [bool(flag & 8) for flag in flags["gated"]] == [i % 4 == 0 for i in range(20)]
    assert sum(bool(flag & 16) for flag in flags["gated"]) == sum(i % 5 == 0 and KINDS[i % 4][1] for i in range(20))


def test_the_arrays_of_a_response_come_back_from_its_chunk() -> None:
    view = make_view(4)
    page = render_view(view)
    header, blob = chunk(page, 0)
    found, stored = view.tokens["gated", "p0", 0, 0], header["0"]["steered"]["tokens"]
    n, at = stored["n"], stored["at"]
    lengths, ids, surprise = (np.frombuffer(blob, "<u2", n, at + i * 2 * n) for i in range(3))
    words = json.loads(gzip.decompress(base64.b64decode(parts(page)[f"chunk-{meta(page)['words']}"])))
    assert [words[i] for i in ids] == [view.token_text[i] for i in found.ids]
    assert lengths.tolist() == [len(piece) for piece in found.pieces]
    np.testing.assert_allclose(surprise / 1000, -found.rows.logprob, atol=5e-4)
    largest = np.frombuffer(blob, np.int8, 3 * n, at + 2 * n * (3 + 10 + 3) + 2 * n).reshape(n, 3) / 127 * stored["scale"]
    np.testing.assert_allclose(largest, found.rows.contribution, atol=stored["scale"] / 254)


def test_the_same_view_gives_the_same_bytes() -> None:
    assert render_view(make_view(hostile=HOSTILE)) == render_view(make_view(hostile=HOSTILE))


def test_a_thousand_problems_of_two_hundred_tokens_stay_below_the_limit() -> None:
    page = render_view(make_view(1000, longest=200), limit=None)
    assert len(page.encode()) < SIZE_LIMIT


@pytest.mark.parametrize("share", [0.2, 0.45])
def test_above_the_limit_the_page_holds_flips_first_and_says_so(share: float) -> None:
    view = make_view(2000)
    empty, full = (len(render_view(view, limit=limit)) for limit in (0, None))
    limit = int(empty + share * (full - empty)) + 20_000
    page = render_view(view, limit=limit)
    held = meta(page)
    assert len(page) < limit
    flipped = [i for i in range(2000) if KINDS[i % 4][0] != KINDS[i % 4][1]]
    inside = [i for i, number in enumerate(held["chunk"]) if number >= 0]
    assert 0 < len(inside) < 2000
    assert set(inside) <= set(flipped) or set(flipped) <= set(inside)
    assert any(f"holds the texts of {len(inside):,} of 2,000 pairs" in note for note in held["notes"])
    assert len(held["problem"]) == 2000


def test_a_view_without_tokens_holds_its_texts() -> None:
    page = render_view(make_view(tokens=False))
    assert meta(page)["tokens"] is False
    assert "tokens" not in chunk(page, 0)[0]["0"]["base"]
