"""Thousands of requests at once with random options, while steerings come and go and some clients are slow, gone or wrong.

``TRIMTAB_SOAK=500 pytest -m slow tests/vllm/serving/test_soak.py`` runs a shorter one; the default is 10,000 requests. A small
one is not marked slow.
"""

import asyncio
import gc
import json
import os
import random
import re
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import cycle

import httpx
import psutil
import pytest

from live_engines import Figures
from sentinels import QUESTIONS, WORDS
from trimtab.model import LanguageModel
from vllm_server import KEY, Server

Options = dict[str, object]
COUNT = int(os.environ.get("TRIMTAB_SOAK", "10000"))
SMALL = 200
CONCURRENCY, MOST = 64, 24
"""Requests at once, and the most tokens of an answer."""
SENTINEL_OF = {**{name: name for name in WORDS}, "gated": "six"}
RUN_TIME = ("sun", "ivy")
"""Loaded and unloaded all the time, in one slot."""
GROWTH = 20
"""MiB by which the server may grow in the second half of 10,000 requests; in the first, caches and rings fill."""


@dataclass
class Soak:
    """One run: what is expected of whom, and what was seen.

    Args:
        bare: the tokens of an unsteered answer to each question, asked alone.
        fires: whether the gate of ``gated`` fires on each question.
        repeated: by name of the sentinel, its token at a positive and at a negative strength.
    """

    http: httpx.AsyncClient
    bare: list[list[int]]
    fires: list[bool]
    repeated: dict[str, tuple[int, int]]
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    loaded: list[str] = field(default_factory=lambda: ["minus", "six", "gated"])
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[object] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def options(self) -> Options:
        """What a request asks for."""
        name = self.dice.choice(["none", "", *self.loaded, *self.loaded])
        if not name or name == "none":
            return {"steering": "none"} if name else {}
        chosen: Options = {"steering": name}
        if self.dice.random() < 0.5:
            chosen["strength"] = self.dice.choice([0, 1, -1, 1.5, -2])
        chosen["gate"] = self.dice.choice(["auto", "auto", "on", "off"])
        if self.dice.random() < 0.3 and (name != "gated" or chosen["gate"] == "on"):
            chosen["scope"] = self.dice.choice(["generated", "last-and-generated", "all"])
        return chosen

    def expected(self, question: int, options: Options, tokens: int) -> list[int]:
        """The tokens of an answer."""
        bare, name = self.bare[question][:tokens], str(options.get("steering", "minus"))
        strength = float(options.get("strength", 1))  # type: ignore[arg-type]
        gate = options.get("gate", "auto")
        fires = gate == "on" or (gate == "auto" and (name != "gated" or self.fires[question]))
        if name == "none" or strength == 0 or not fires:
            return bare
        own = self.repeated[SENTINEL_OF[name]][0 if strength > 0 else 1]
        return ([own] if options.get("scope", "generated") != "generated" else bare[:1]) + [own] * (tokens - 1)

    async def request(self) -> None:
        """One request, in one of the ways in which clients behave."""
        question, options, tokens = self.dice.randrange(len(QUESTIONS)), self.options(), self.dice.randint(1, MOST)
        ways = {"whole": 48, "stream": 30, "stream cancelled": 10, "dropped": 10, "sent slowly": 1, "read slowly": 1}
        way = self.dice.choices(list(ways), list(ways.values()))[0]
        body = asking(question, options, tokens) | {"stream": way in ("stream", "stream cancelled", "read slowly")}
        self.seen[way] += 1
        self.seen["steered"] += options.get("steering") != "none"
        if way == "dropped":
            try:
                await asyncio.wait_for(self.http.post("/v1/chat/completions", json=body), self.dice.random() * 0.1)
            except TimeoutError:
                return
            self.seen["dropped too late"] += 1
            return
        if way in ("whole", "sent slowly"):
            sent: Options = {"json": body} if way == "whole" else {"content": slowly(body), "headers": JSON}
            answer = await self.http.post("/v1/chat/completions", **sent)  # type: ignore[arg-type]
            got = answer.json()["choices"][0]["token_ids"] if answer.is_success else None
            self.judge(got, answer.text, question, options, tokens)
        else:
            wanted = self.dice.randint(1, tokens) if way == "stream cancelled" else tokens
            await self.stream(body, question, options, tokens, wanted, pause=0.1 if way == "read slowly" else 0.0)

    async def stream(self, body: Options, question: int, options: Options, tokens: int, wanted: int, pause: float) -> None:
        """A streamed answer, read with this pause before each line and hung up after this many tokens."""
        got: list[int] = []
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            if not answer.is_success:
                return self.judge(None, (await answer.aread()).decode(), question, options, tokens)
            async for line in answer.aiter_lines():
                await asyncio.sleep(pause)
                if line.startswith('data: {"error'):
                    return self.judge(None, line, question, options, tokens)
                got += _tokens(line)
                if len(got) >= wanted < tokens:
                    tokens = len(got)
                    break
        return self.judge(got, "", question, options, tokens)

    def judge(self, got: list[int] | None, text: str, question: int, options: Options, tokens: int) -> None:
        """Compare an answer with what was expected."""
        expected = self.expected(question, options, tokens)
        if got is None and options.get("steering") in RUN_TIME and "cannot be used; accepted" in text:
            self.seen["unloaded meanwhile"] += 1
        elif got != expected:
            self.wrong.append((question, options, tokens, got or text, expected))

    async def malformed(self) -> None:
        """One request that must be answered 400."""
        body = {"model": "reasoner", "prompt": "1", "max_tokens": 2, "stream": self.dice.random() < 0.5}
        content = json.dumps(body | {"vllm_xargs": _bad(self.dice)})
        answer = await self.http.post("/v1/completions", content=content, headers=JSON)
        self.seen["malformed"] += 1
        if answer.status_code != 400:
            self.wrong.append((content, answer.status_code, answer.text))

    async def swap(self) -> None:
        """Load and unload one after the other, until told to stop."""
        for name in cycle(RUN_TIME):
            until = time.monotonic() + 120
            while not (answer := await self.http.post("/v1/trimtab/load", json={"name": name, "path": name})).is_success:
                assert time.monotonic() < until, f"no slot for {name!r} in two minutes: {answer.text}"
                await asyncio.sleep(0.05)  # requests still hold the slot
            self.seen["loads"] += 1
            self.loaded.append(name)
            await asyncio.sleep(0.5)
            self.loaded.remove(name)
            assert (await self.http.post("/v1/trimtab/unload", json={"name": name})).is_success
            if self.stop.is_set():
                return


JSON = {"Content-Type": "application/json"}


async def slowly(body: Options) -> AsyncIterator[bytes]:
    """A body in four parts with pauses between them."""
    whole = json.dumps(body).encode()
    size = len(whole) // 4 + 1
    for start in range(0, len(whole), size):
        await asyncio.sleep(0.2)
        yield whole[start : start + size]


def asking(question: int, options: Options, tokens: int) -> Options:
    """The body of a request."""
    body = {"model": "reasoner", "messages": [{"role": "user", "content": QUESTIONS[question]}], "max_tokens": tokens}
    return body | {"temperature": 0, "ignore_eos": True, "return_token_ids": True, "vllm_xargs": options}


def _tokens(line: str) -> list[int]:
    """Those of an event of a stream."""
    if not line.startswith("data: {"):
        return []
    return [token for choice in json.loads(line.removeprefix("data: "))["choices"] for token in choice.get("token_ids") or ()]


def _bad(dice: random.Random) -> Options:
    values = [True, [], [1], ["six"], {}, {"six": 1}, "", "sixx", 1e300, float("nan"), float("inf"), 10**400, "six\0", "6" * 5000]
    keys = ["steering", "strength", "gate", "scope", "record", "trimtab_slot", "trimtab_digest", "trimtab_"]
    return {"steering": "six", dice.choice(keys): dice.choice(values)}


def resident(pid: int) -> float:
    """MiB of a process and its children that they share with nobody."""
    whole = psutil.Process(pid)
    return sum(each.memory_full_info().uss for each in (whole, *whole.children(recursive=True))) / 2**20


async def alone(http: httpx.AsyncClient, question: int) -> list[int]:
    """An unsteered answer, as long as any that is asked for later."""
    answer = await http.post("/v1/chat/completions", json=asking(question, {"steering": "none"}, MOST))
    return answer.json()["choices"][0]["token_ids"]


async def drain(run: Soak, kinds: Iterator[str]) -> None:
    """All of these, this many at a time."""

    async def work() -> None:
        for kind in kinds:
            await (run.malformed() if kind == "malformed" else run.request())

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def soak(
    server: Server, fires: list[bool], repeated: dict[str, tuple[int, int]], number: int
) -> tuple[Soak, float, float, float]:
    """What was seen, the seconds, and MiB of the server after half of the requests and after all."""
    limits = httpx.Limits(max_connections=CONCURRENCY + 8)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=120, limits=limits) as http:
        run = Soak(http, [await alone(http, question) for question in range(len(QUESTIONS))], fires, repeated)
        kinds = ["request"] * number + ["malformed"] * (number // 100)
        run.dice.shuffle(kinds)
        swapping, began = asyncio.create_task(run.swap()), time.perf_counter()
        await drain(run, iter(kinds[: len(kinds) // 2]))
        early = resident(server.pid)
        await drain(run, iter(kinds[len(kinds) // 2 :]))
        seconds, late = time.perf_counter() - began, resident(server.pid)
        run.stop.set()
        await swapping
        await alone(http, 0)  # the engine hears at its next step of requests that have ended
        return run, seconds, early, late


@pytest.mark.parametrize("number", [SMALL, pytest.param(COUNT, marks=pytest.mark.slow)], ids=["small", "whole"])
def test_soak(server: Server, p_fail: list[float], reasoner: LanguageModel, figures: Figures, number: int) -> None:
    repeated = {name: tuple(reasoner.tokenizer.convert_tokens_to_ids(pair)) for name, pair in WORDS.items()}
    with warnings.catch_warnings():
        # httpx leaves the socket of a request that was dropped while it connected to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        run, seconds, early, late = asyncio.run(soak(server, [p >= 0.5 for p in p_fail], repeated, number))
        gc.collect()
    with server.http() as http:
        status, metrics = http.get("/v1/trimtab/status").json(), http.get("/metrics").text
    preempted = int(float(re.findall(r"^vllm:num_preemptions_total\{.*\} (.*)$", metrics, re.MULTILINE)[0]))
    seen = ", ".join(f"{number:,} {what}" for what, number in sorted(run.seen.items()))
    seen += f", {preempted} preempted, {early:,.0f} MiB after half and {late:,.0f} after all"
    figures(f"soak of {number:,} requests at {CONCURRENCY} in {seconds:.0f} s: {len(run.wrong)} wrong, {seen}")
    assert not run.wrong[:5]
    assert {"malformed", "sent slowly", "read slowly", "dropped", "loads"} <= set(run.seen)
    assert (status["slots"], status["draining"]) == ({"total": 5, "free": 1}, [])
    assert {each["name"]: each["requests"] for each in status["steerings"]} == {
        "minus": 0,
        "six": 0,
        "gated": 0,
        "watchful": 0,
    }
    assert status["engine"]["requests_running"] == 0
    if number >= 10_000:
        assert late - early < GROWTH
        assert preempted
