"""A small client of servers that speak OpenAI's chat protocol: vLLM, Ollama, llama.cpp, `transformers serve`.

A model behind one is named openai:NAME@URL, e.g. openai:llama3.2@http://localhost:11434/v1. A key, where the server
wants one, is read from REPRO_API_KEY, else from OPENAI_API_KEY; it is in no message, log or repr.
"""

from __future__ import annotations

import datetime
import email.utils
import os
import queue
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from repro.errors import BadInput, CannotHere

KEYS = ("REPRO_API_KEY", "OPENAI_API_KEY")
_AGAIN = {408, 409, 425, 429}  # and everything from 500 on: worth another try
_LONGEST_WAIT = 600.0  # seconds; a server that asks for more is asked again by a person
_LONGEST_PAUSE = 30.0  # seconds, where the server names no time
Messages = list[dict[str, str]]
Job = TypeVar("Job")
Result = TypeVar("Result")


class Refused(BadInput):
    """The server takes no request of this form (an unknown field, too long a prompt)."""


@dataclass(frozen=True)
class Reply:
    """What a model said, as models.Answer: text, whether it ended its turn, length in tokens (estimated from the text
    where the server does not count); `prompt_tokens` is what it read, 0 where the server does not say."""

    text: str
    finished: bool
    tokens: int
    prompt_tokens: int = 0


def parse(text: str) -> tuple[str, str]:
    """(name, base URL without a slash at its end) of `openai:NAME@URL`. A bare host gets the usual path /v1."""
    match = re.fullmatch(r"openai:(?P<name>[^\s@](?:.*?\S)?)@(?P<url>[a-zA-Z][a-zA-Z0-9+.-]*://\S+)", text)
    if match is None:
        hidden = re.sub(r"@.*", "@...", text) if text.count("@") > 1 else text  # what is there may be a password
        raise BadInput(f"{hidden}: expected openai:NAME@URL, e.g. openai:llama3.2@http://localhost:11434/v1")
    try:
        parts = urlsplit(match["url"])
        host, port = parts.hostname, parts.port
        httpx.URL(match["url"])
    except (ValueError, httpx.InvalidURL) as error:
        raise BadInput(f"openai:{match['name']}@...: no URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise BadInput(f"openai:{match['name']}@...: the URL holds a user name; a key goes into {KEYS[0]}")
    shown = f"{parts.scheme}://{host or ''}{f':{port}' if port else ''}{parts.path}"
    if parts.scheme not in ("http", "https") or not host:
        raise BadInput(f"openai:{match['name']}@{shown}: expected a URL with http:// or https:// and a host")
    if parts.query or parts.fragment:
        raise BadInput(f"openai:{match['name']}@{shown}?...: expected a URL without ? and #; a key goes into {KEYS[0]}")
    url = match["url"].rstrip("/").removesuffix("/chat/completions")
    return match["name"], url if parts.path.rstrip("/") else f"{url}/v1"


def connect(text: str, **options: Any) -> Client:
    """The client of `openai:NAME@URL`, once something answers there. BadInput for a wrong key, CannotHere if nothing
    does. `options` are those of Client."""
    client = Client(*parse(text), **options)
    client.check()
    return client


class Client:
    """One model of one server. `concurrency` requests at a time, each tried `tries` times with waits that double from
    `backoff` seconds; `timeout` is how long the server may be silent. Safe to use from several threads."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        concurrency: int = 8,
        timeout: float = 300.0,
        tries: int = 8,
        backoff: float = 0.5,
        sleep: Callable[[float], Any] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if concurrency < 1:
            raise BadInput(f"concurrency: {concurrency} is not a number of requests at a time (1 or more)")
        self.name, self.url, self.concurrency, self.timeout = name, url, concurrency, timeout
        self._closed = threading.Event()
        self._tries, self._backoff, self._sleep = tries, backoff, sleep or self._closed.wait
        self._key, self._key_from = _key()
        host = urlsplit(url).hostname or ""
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx.Limits(max_connections=concurrency + 1, max_keepalive_connections=concurrency + 1),
            transport=transport,
            trust_env=not (host in ("localhost", "::1") or host.startswith("127.")),  # no proxy to this very machine
        )

    @property
    def spec(self) -> str:
        """openai:NAME@URL."""
        return f"openai:{self.name}@{self.url}"

    def __repr__(self) -> str:
        return f"Client({self.spec!r})"

    def close(self) -> None:
        """Closes the connections; requests that are being tried again in other threads are given up."""
        self._closed.set()
        self._http.close()

    def check(self) -> None:
        """Raises CannotHere where no server answers, BadInput where it does not take the key. A server that is only
        busy, or lists no models, passes."""
        try:
            response = self._http.get("models", timeout=min(self.timeout, 10.0))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            why = type(error).__name__
            raise CannotHere(f"{self.spec}: nothing answers there ({why}): start the server or mend the URL") from None
        except httpx.RequestError:
            return
        if response.status_code in (401, 403):
            raise self._fault(response)

    # --- text

    def chat(self, messages: Messages, max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> Reply:
        """The answer to a chat that ends with a user's turn. Greedy at temperature 0; `seed` is sent with sampling
        only, and not every server heeds it."""
        if not messages or messages[-1]["role"] == "assistant":
            raise ValueError("a server answers a user's turn; it can't be made to go on with an answer")
        body: dict[str, Any] = {"messages": messages, "max_tokens": max_tokens, "temperature": temperature}
        if temperature > 0 and seed is not None:
            body["seed"] = seed
        return self._post(body, _reply)

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
        """One answer a prompt, in the prompts' order, as models.Model.generate; progress(done, total)."""
        if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
            raise ValueError("sampling needs one seed per prompt")
        places = iter(range(len(prompts)))
        found: dict[int, Reply] = {}

        def ask(place: int) -> Reply:
            return self.chat(prompts[place], max_new_tokens, temperature, seeds[place] if seeds else None)

        workers = min(self.concurrency, len(prompts))
        for place, reply in concurrently(ask, lambda: next(places, None), workers):
            found[place] = reply
            if on_batch is not None:
                on_batch([place], [reply])
            if progress is not None:
                progress(len(found), len(prompts))
        return [found[place] for place in range(len(prompts))]

    def logprobs(self, prompts: list[Messages], continuations: list[str]) -> list[float] | None:
        """As models.Model.logprobs, where the server gives the log-probabilities of a prompt's tokens (vLLM does);
        None where it does not: such metrics are unscored, not zero."""
        if len(prompts) != len(continuations):
            raise ValueError("one continuation per prompt")
        places = iter(range(len(prompts)))
        found: dict[int, float] = {}

        def ask(place: int) -> float | None:
            before = self._prompt_tokens(prompts[place], add_generation_prompt=True)
            turn = {"role": "assistant", "content": continuations[place]}
            whole = self._prompt_tokens(
                [*prompts[place], turn], add_generation_prompt=False, continue_final_message=True
            )
            if before is None or whole is None or len(whole) <= len(before):
                return None
            if [token for token, _ in whole[: len(before)]] != [token for token, _ in before]:
                return None  # the words run into the prompt's last token: nothing to tell apart
            return sum(value for _, value in whole[len(before) :])

        workers = min(self.concurrency, len(prompts))
        for place, value in concurrently(ask, lambda: next(places, None), workers):
            if value is None:
                return None
            found[place] = value
        return [found[place] for place in range(len(prompts))]

    def _prompt_tokens(self, messages: Messages, **template: bool) -> list[tuple[str, float]] | None:
        """(token id, log-probability) of each token of the prompt; None where the server does not tell."""
        body = {"messages": messages, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, **template}
        try:
            found = self._post(body, lambda content: (_reply(content), content.get("prompt_logprobs"))[1])
        except Refused:
            return None
        try:  # one entry a token; the first token has none, since nothing comes before it
            pairs = [next(iter(entry.items())) for entry in found[1:]]
            return [("", 0.0), *((token, float(value["logprob"])) for token, value in pairs)]
        except (TypeError, KeyError, AttributeError, ValueError, StopIteration):
            return None

    # --- requests

    def _post(self, body: dict[str, Any], read: Callable[[Any], Result]) -> Result:
        """What `read` finds in the reply; a reply in which it finds nothing is garbage, and is asked for again."""
        trouble, wait = "", 0.0
        for attempt in range(self._tries):
            if attempt:
                pause = min(_LONGEST_PAUSE, self._backoff * 2 ** (attempt - 1))
                self._sleep(max(wait, pause * random.uniform(0.5, 1.0)))
            if self._closed.is_set():
                raise CannotHere(f"{self.spec}: closed")
            wait = 0.0
            try:
                response = self._http.post("chat/completions", json={"model": self.name, **body})
            except httpx.TimeoutException:
                trouble = f"no answer within {self.timeout:g} s"
                continue
            except httpx.RequestError as error:
                trouble = f"the connection failed ({type(error).__name__})"
                continue
            if response.is_success:
                try:
                    return read(response.json())
                except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                    trouble = f"what came back is not a chat completion: {self._safe(response.text)[:80]!r}"
                    continue
            if (response.status_code < 500 and response.status_code not in _AGAIN) or _out_of_quota(response):
                raise self._fault(response)
            trouble, wait = f"HTTP {response.status_code}{self._said(response)}", _retry_after(response)
            if wait > _LONGEST_WAIT:
                raise CannotHere(f"{self.spec}: {trouble}; it asks to wait {wait / 60:.0f} minutes: try again then")
        raise CannotHere(f"{self.spec}: no usable answer in {self._tries} tries; the last one: {trouble}")

    def _fault(self, response: httpx.Response) -> BadInput | CannotHere:
        """The error of a reply that no other try would mend."""
        code = response.status_code
        if code in (401, 403):  # what the server says may quote the key
            cause = f"the key in {self._key_from}" if self._key else f"requests without a key (set {KEYS[0]})"
            return BadInput(f"{self.spec}: the server does not accept {cause}: HTTP {code}")
        if code == 404:
            listed = self._listed()
            names = f"; it lists {', '.join(listed[:8])}" if listed else ""
            return BadInput(
                f"{self.spec}: the server has no model {self.name}, or the URL has another path: "
                f"HTTP 404{self._said(response)}{names}"
            )
        if code == 402 or _out_of_quota(response):
            return CannotHere(f"{self.spec}: the account's quota is used up: HTTP {code}{self._said(response)}")
        if response.is_redirect:
            return BadInput(f"{self.spec}: the server sends elsewhere (HTTP {code}): give the final URL")
        return Refused(f"{self.spec}: the server refuses the request: HTTP {code}{self._said(response)}")

    def _listed(self) -> list[str]:
        try:
            return [str(entry["id"]) for entry in self._http.get("models", timeout=5.0).json()["data"]]
        except (httpx.RequestError, ValueError, KeyError, TypeError):
            return []

    def _said(self, response: httpx.Response) -> str:
        """`: <the server's own message>` where there is one."""
        try:
            content = response.json()
        except ValueError:
            content = None
        for name in ("error", "message", "detail"):
            if isinstance(content, dict) and content.get(name):
                content = content[name]
        return f": {self._safe(content)[:200]}" if isinstance(content, str) and content.strip() else ""

    def _safe(self, text: str) -> str:
        return " ".join((text.replace(self._key, "[key]") if self._key else text).split())


def _key() -> tuple[str, str]:
    """(key, name of the variable it came from); ("", "") without one."""
    for name in KEYS:
        key = os.environ.get(name, "").strip()
        if key and not re.fullmatch(r"[!-~]+", key):  # the HTTP library's own error would quote it
            raise BadInput(f"{name}: a key has no spaces, line breaks or letters beyond ASCII; this one does")
        if key:
            return key, name
    return "", ""


def _reply(content: Any) -> Reply:
    choice, usage = content["choices"][0], content.get("usage") or {}
    text = choice["message"].get("content")
    if not (text is None or isinstance(text, str)):
        raise TypeError("content is no text")
    text = (text or "").strip()
    counts = [usage.get(name) for name in ("completion_tokens", "prompt_tokens")]
    written, taken = [count if isinstance(count, int) and count >= 0 else None for count in counts]
    estimate = (len(text) + 3) // 4  # about four letters a token
    return Reply(text, choice.get("finish_reason") == "stop", estimate if written is None else written, taken or 0)


def _out_of_quota(response: httpx.Response) -> bool:
    return response.status_code == 429 and "insufficient_quota" in response.text


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait (a number or a date); 0 where it does not."""
    asked = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())


# many at a time ------------------------------------------------------------------------------------------------------


def concurrently(
    work: Callable[[Job], Result], next_job: Callable[[], Job | None], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Yields (job, work(job)) as they finish, with up to `workers` jobs under way.

    `next_job` is asked in the caller's thread whenever a worker is free; None means nothing for now, and the end is
    when nothing is under way either. What `work` raises is raised here. The threads are daemons: an interrupt does not
    wait for their requests. One worker is no thread at all.
    """
    if workers <= 1:
        while (only := next_job()) is not None:
            yield only, work(only)
        return
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def labour() -> None:
        while (entry := todo.get()) is not None:
            try:
                done.put((entry[0], work(entry[0]), None))
            except BaseException as error:
                done.put((entry[0], None, error))

    running = threads = 0
    try:
        while True:
            while running < workers and (job := next_job()) is not None:
                running += 1
                todo.put((job,))
                if running > threads:
                    threading.Thread(target=labour, daemon=True).start()
                    threads += 1
            if not running:
                return
            finished, result, error = done.get()
            running -= 1
            if error is not None:
                raise error
            yield finished, result
    finally:
        for _ in range(threads):
            todo.put(None)
