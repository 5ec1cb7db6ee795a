"""What the routes do with the steerings of a running server."""

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

from trimtab.errors import ModelError, TrimtabError
from trimtab.vllm_plugin.install import read_steering
from trimtab.vllm_plugin.registry import registry
from trimtab.vllm_plugin.slot_facts import SlotFacts


class Steerings:
    """Loads and unloads, one change at a time, and asks the workers."""

    def __init__(self, engine: Any, folder: Path | None) -> None:
        """Of a server that has just started.

        Args:
            engine: vLLM's engine client, which answers ``collective_rpc``.
            folder: artifacts in it may be loaded; None allows none.
        """
        self._engine, self._folder = engine, folder
        self._lock = asyncio.Lock()

    async def load(self, name: str, path: str) -> SlotFacts:
        """Read an artifact, hand it to the workers, and only then let requests name it.

        Args:
            name: what requests will call it.
            path: of its folder, from the folder that the server was started with.

        Raises:
            PermissionError: the server was started without such a folder, or the path leads out of it.
            TrimtabError: a name that is taken, no free slot, or an artifact that does not fit.
        """
        root, folder = self._inside(path)
        try:
            return await self._load(name, str(folder))
        except TrimtabError as cause:
            raise type(cause)(str(cause).replace(f"{root}/", "")) from cause  # where the folder is is no client's business

    async def _load(self, name: str, folder: str) -> SlotFacts:
        own, hf_config = registry(), self._engine.vllm_config.model_config.hf_text_config
        steering = await asyncio.to_thread(read_steering, folder, name, own.config, hf_config)
        async with self._lock:
            await self._empty_drained()
            prepared = own.reserve(name, folder, steering)
            try:
                await self._tell(prepared.facts)
            except BaseException:
                own.abandon(prepared)
                raise
            return own.add(prepared)

    async def unload(self, name: str) -> SlotFacts:
        """Take no more requests for a steering; its slot is emptied at once if none runs, else before it is needed again.

        Raises:
            InputError: none of that name, or the default.
        """
        async with self._lock:
            facts = registry().remove(name)
            await self._empty_drained()
            return facts

    async def status(self) -> dict[str, object]:
        """What is loaded, who still holds a slot, and what the first worker says of itself."""
        async with self._lock:
            await self._empty_drained()
        own = registry()
        loaded, draining = own.loaded(), own.draining()
        return {
            "default": own.default,
            "loading": self._folder is not None,
            "slots": {"total": own.config.slots, "free": own.config.slots - len(loaded) - len(draining)},
            "steerings": [shown(facts) | {"requests": own.requests(facts.slot)} for facts in loaded.values()],
            "draining": [shown(facts) | {"requests": own.requests(slot)} for slot, facts in draining.items()],
            "engine": await self.engine_status(),
        }

    async def engine_status(self) -> dict[str, Any]:
        """What the first worker says of itself; the others of a tensor-parallel group do the same."""
        return await self._ask("trimtab_status")

    async def answers(self, request_id: str) -> list[dict[str, object]]:
        """What was read for each answer to a request, prompt by prompt; empty for one that is not remembered.

        vLLM appends a number to each prompt of a completion or a batch of chats and to each round of a response, and prepends one
        to the answers of ``n > 1``.
        """
        found = await self._choices(request_id)
        if found:
            return found
        mark = "-" if request_id.startswith("cmpl-") else "_"
        for number in count():
            choices = await self._choices(f"{request_id}{mark}{number}")
            if not choices:
                break
            found += choices
        return found

    async def _choices(self, request_id: str) -> list[dict[str, object]]:
        only = await self._ask("trimtab_request", request_id)
        if only is not None:
            return [only]
        found: list[dict[str, object]] = []
        while (answer := await self._ask("trimtab_request", f"{len(found)}_{request_id}")) is not None:
            found.append(answer)
        return found

    def _inside(self, path: str) -> tuple[Path, Path]:
        if self._folder is None:
            raise PermissionError(
                "this server was started without --load-from FOLDER, so clients cannot make it read files; restart it with one"
            )
        root = self._folder.resolve()
        folder = (root / path).resolve()  # links are followed first: one could lead out
        if not folder.is_relative_to(root):
            raise PermissionError(f"{path!r} is not in the folder of --load-from; accepted: the path of an artifact in it")
        return root, folder

    async def _empty_drained(self) -> None:
        own = registry()
        for slot in own.drained():
            await self._ask("trimtab_unload", slot)
            own.forget(slot)

    async def _tell(self, facts: SlotFacts) -> None:
        try:
            await self._ask("trimtab_load", facts.slot, facts.path, facts.digest)
        except Exception as cause:
            if type(cause) is not Exception:  # vLLM raises a bare one for what a worker has refused
                raise
            raise ModelError(f"{facts.name!r} was not loaded: {cause}") from cause

    async def _ask(self, method: str, *arguments: object) -> Any:
        return (await self._engine.collective_rpc(method, args=arguments))[0]


def shown(facts: SlotFacts) -> dict[str, object]:
    """A steering as clients see it: without its path, which is no business of theirs."""
    return {name: getattr(facts, name) for name in ("name", "slot", "digest", "strength", "scope", "gate", "neurons")}
