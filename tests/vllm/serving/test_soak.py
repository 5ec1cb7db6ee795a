"""Thousands of requests at once with random options, cancelled and dropped ones among them, while steerings come and go.

``TRIMTAB_SOAK=500 pytest -m slow tests/vllm/serving/test_soak.py`` runs a shorter one; the default is 10,000 requests.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle

import httpx
import psutil
import pytest

from sentinels import QUESTIONS, WORDS
from vllm_server import KEY, Server

Options = dict[str, object]
COUNT = int(os.environ.get("TRIMTAB_SOAK", "10000"))
CONCURRENCY = 64
SENTINEL_OF = {**{name: name for name in WORDS}, "gated": "six"}
RUN_TIME = ("sun", "ivy")
"""Loaded and unloaded all the time, in one slot."""
GROWTH = 40
"""MiB by which the server may grow between a fifth of the requests and all: what the allocators keep, see docs/vllm.md."""


@dataclass
class Soak:
    """One run: what is expected of whom, and what was seen.

    Args:
        bare: the words of an unsteered answer to each question, asked alone.
        fires: whether the gate of ``gated`` fires on each question.
    """

    http: httpx.AsyncClient
    bare: list[list[str]]
    fires: list[bool]
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

    def expected(self, question: int, options: Options, tokens: int) -> list[str]:
        """The words of a whole answer."""
        bare, name = self.bare[question][:tokens], str(options.get("steering", "minus"))
        strength = float(options.get("strength", 1))  # type: ignore[arg-type]
        gate = options.get("gate", "auto")
        fires = gate == "on" or (gate == "auto" and (name != "gated" or self.fires[question]))
        if name == "none" or strength == 0 or not fires:
            return bare
        word = WORDS[SENTINEL_OF[name]][0 if strength > 0 else 1]
        return ([word] if options.get("scope", "generated") != "generated" else bare[:1]) + [word] * (tokens - 1)

    async def request(self) -> None:
        """One request, in one of the ways in which clients behave."""
        question, options, tokens = self.dice.randrange(len(QUESTIONS)), self.options(), self.dice.randint(1, 24)
        way = self.dice.choices(["whole", "stream", "stream cancelled", "dropped"], [5, 3, 1, 1])[0]
        body = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True, "vllm_xargs": options, "model": "reasoner"}
        body |= {"messages": [{"role": "user", "content": QUESTIONS[question]}], "stream": way.startswith("stream")}
        self.seen[way] += 1
        self.seen["steered"] += options.get("steering") != "none"
        if way == "dropped":
            try:
                await asyncio.wait_for(self.http.post("/v1/chat/completions", json=body), self.dice.random() * 0.1)
            except TimeoutError:
                return
            self.seen["dropped too late"] += 1
            return
        if way == "whole":
            answer = await self.http.post("/v1/chat/completions", json=body)
            words = answer.json()["choices"][0]["message"]["content"].split() if answer.is_success else None
            self.judge(words, answer.text, question, options, tokens)
        else:
            wanted = self.dice.randint(1, tokens) if way == "stream cancelled" else tokens
            await self.stream(body, question, options, tokens, wanted)

    async def stream(self, body: Options, question: int, options: Options, tokens: int, wanted: int) -> None:
        """A streamed answer, hung up after so many words."""
        words: list[str] = []
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            if not answer.is_success:
                return self.judge(None, (await answer.aread()).decode(), question, options, tokens)
            async for line in answer.aiter_lines():
                if line.startswith('data: {"error'):
                    return self.judge(None, line, question, options, tokens)
                words += _words(line)
                if len(words) >= wanted < tokens:
                    tokens = len(words)
                    break
        return self.judge(words, "", question, options, tokens)

    def judge(self, words: list[str] | None, text: str, question: int, options: Options, tokens: int) -> None:
        """Compare an answer with what was expected."""
        expected = self.expected(question, options, tokens)
        if words is None and options.get("steering") in RUN_TIME and "cannot be used; accepted" in text:
            self.seen["unloaded meanwhile"] += 1
        elif words is not None and words != expected and expected == self.bare[question][:tokens] and not _is_sentinel(words):
            self.seen["near ties"] += 1  # an unsteered answer that rounding in another batch has changed
        elif words != expected:
            self.wrong.append((question, options, tokens, words or text, expected))

    async def malformed(self) -> None:
        """One request that must be answered 400."""
        body = {"model": "reasoner", "prompt": "1", "max_tokens": 2, "stream": self.dice.random() < 0.5}
        content = json.dumps(body | {"vllm_xargs": _bad(self.dice)})
        answer = await self.http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
        self.seen["malformed"] += 1
        if answer.status_code != 400:
            self.wrong.append((content, answer.status_code, answer.text))

    async def swap(self) -> None:
        """Load and unload one after the other, until told to stop."""
        for name in cycle(RUN_TIME):
            while not (await self.http.post("/v1/trimtab/load", json={"name": name, "path": name})).is_success:
                await asyncio.sleep(0.05)  # requests still hold the slot
            self.seen["loads"] += 1
            self.loaded.append(name)
            await asyncio.sleep(0.5)
            self.loaded.remove(name)
            assert (await self.http.post("/v1/trimtab/unload", json={"name": name})).is_success
            if self.stop.is_set():
                return


def _words(line: str) -> list[str]:
    if not line.startswith("data: {"):
        return []
    event = json.loads(line.removeprefix("data: "))
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"]).split()


def _is_sentinel(words: list[str]) -> bool:
    return len(words) > 2 and len(set(words[1:])) == 1 and words[1] in {word for pair in WORDS.values() for word in pair}


def _bad(dice: random.Random) -> Options:
    values = [True, [], [1], ["six"], {}, {"six": 1}, "", "sixx", 1e300, float("nan"), float("inf"), 10**400, "six\0", "6" * 5000]
    keys = ["steering", "strength", "gate", "scope", "record", "trimtab_slot", "trimtab_digest", "trimtab_"]
    return {"steering": "six", dice.choice(keys): dice.choice(values)}


def resident(pid: int) -> float:
    """MiB of a process and its children that they share with nobody."""
    whole = psutil.Process(pid)
    return sum(each.memory_full_info().uss for each in (whole, *whole.children(recursive=True))) / 2**20


async def alone(http: httpx.AsyncClient, question: str) -> list[str]:
    """The words of an unsteered answer, more than are asked for later."""
    body = {"model": "reasoner", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 24}
    answer = await http.post("/v1/chat/completions", json={**body, "ignore_eos": True, "vllm_xargs": {"steering": "none"}})
    return answer.json()["choices"][0]["message"]["content"].split()


async def drain(run: Soak, kinds: Iterator[str]) -> None:
    """All of these, so many at a time."""

    async def work() -> None:
        for kind in kinds:
            await (run.malformed() if kind == "malformed" else run.request())

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def soak(server: Server, fires: list[bool]) -> tuple[Soak, float, float, float]:
    """What was seen, the seconds, and MiB of the server after a fifth of the requests and after all."""
    limits = httpx.Limits(max_connections=CONCURRENCY + 8)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=120, limits=limits) as http:
        run = Soak(http, [await alone(http, question) for question in QUESTIONS], fires)
        kinds = ["request"] * COUNT + ["malformed"] * (COUNT // 10)
        run.dice.shuffle(kinds)
        swapping, began = asyncio.create_task(run.swap()), time.perf_counter()
        await drain(run, iter(kinds[: len(kinds) // 5]))
        early = resident(server.pid)
        await drain(run, iter(kinds[len(kinds) // 5 :]))
        seconds, late = time.perf_counter() - began, resident(server.pid)
        run.stop.set()
        await swapping
        await alone(http, QUESTIONS[0])  # the engine hears at its next step of requests that have ended
        return run, seconds, early, late


@pytest.mark.slow
def test_soak(server: Server, p_fail: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    run, seconds, early, late = asyncio.run(soak(server, [p >= 0.5 for p in p_fail]))
    with server.http() as http:
        status = http.get("/v1/trimtab/status").json()
    with capsys.disabled():
        seen = ", ".join(f"{number} {what}" for what, number in sorted(run.seen.items()))
        figures = f"{seconds:.0f} s, {len(run.wrong)} wrong; {seen}; {early:.0f} to {late:.0f} MiB"
        print(f"\nsoak: {COUNT} requests at {CONCURRENCY} in {figures}")
    assert not run.wrong[:5]
    assert run.seen["near ties"] <= COUNT / 1000
    assert (status["slots"], status["draining"]) == ({"total": 4, "free": 1}, [])
    assert {each["name"]: each["requests"] for each in status["steerings"]} == {"minus": 0, "six": 0, "gated": 0}
    assert status["engine"]["requests_running"] == 0
    assert late - early < GROWTH
    assert "Traceback" not in server.log.read_text()
