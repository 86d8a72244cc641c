"""A model behind an OpenAI-compatible server, with the part of models.Model that asking needs: `openai:NAME@URL`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repro.errors import BadInput, CannotHere
from repro.models.openai import Reply, concurrently, connect
from repro.models.tokens import Messages

FAILURES = 5  # prompts without an answer, one after another: then it is the server, not the prompt


class Remote:
    """Asks the server; an answer that it never gives is an unfinished one, which the evaluation counts as unscored."""

    device, model = "remote", None

    def __init__(self, spec: Any, **options: Any) -> None:
        self.spec = spec
        self._client = connect(spec.path_or_hub, **options)
        self.precision = "unknown: the server decides"
        self._failed = 0

    def fingerprint(self) -> str:
        """The name and the URL: what a server holds can't be hashed."""
        return str(self.spec.path_or_hub)

    def peak_gib(self) -> None:
        """Unknown: it is the server's memory."""

    def drop_adapter(self) -> None:
        """Nothing to drop."""

    def load_adapter(self, folder: Path | str, trainable: bool = False) -> None:
        """A server's model takes no adapter: BadInput."""
        raise BadInput(f"model {self.spec.id}: adapters can't be put on a server's model")

    def generate(
        self,
        prompts: list[Messages],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seeds: list[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
        on_batch: Callable[[list[int], list[Reply]], None] | None = None,
    ) -> list[Reply]:
        """One answer a prompt, in their order; on_batch([place], [answer]) as each comes. CannotHere where the server
        fails again and again."""
        places = iter(range(len(prompts)))
        found: dict[int, Reply] = {}

        def ask(place: int) -> Reply:
            try:
                reply = self._client.chat(
                    prompts[place], max_new_tokens, temperature, seeds[place] if seeds else None
                )
            except CannotHere:
                self._failed += 1
                if self._failed >= FAILURES:
                    raise
                return Reply("", False, 0)
            self._failed = 0
            return reply

        for place, reply in concurrently(ask, lambda: next(places, None), min(self._client.concurrency, len(prompts))):
            found[place] = reply
            if on_batch is not None:
                on_batch([place], [reply])
            if progress is not None:
                progress(len(found), len(prompts))
        return [found[place] for place in range(len(prompts))]

    def logprobs(self, prompts: list[Messages], continuations: list[str]) -> list[float]:
        """As models.Model.logprobs; NaN, which counts as unscored, where the server gives none."""
        return self._client.logprobs(prompts, continuations) or [math.nan] * len(prompts)
