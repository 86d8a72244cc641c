"""Talk to the arms of a run: one prompt, every arm's answer beside the others as it grows.

    repro chat RUN --arms base,naive,character

On a terminal the answers stand in columns; with input from a pipe each is a plain line. A line that begins with a
slash is a command: see /help.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import store
from repro.arms import Ready, Run, open_run
from repro.errors import BadInput, ReproError
from repro.evals.common import chat as as_messages
from repro.seeds import derive

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from repro.models import Answer

HELP = """\
/system TEXT     a system prompt for all arms, after their own; without a text: none
/arms a,b        who answers; without names: who can. Begins a new conversation
/seed N          which training seed the arms come from. Begins a new conversation
/temperature T   0 is the likeliest answer, up to 2; the same luck for all arms
/reset           begin a new conversation
/save            write the turns so far to a file of this chat's own, in the run's folder under chats/
/quit            leave (so does the end of the input)"""
NARROWEST = 26  # characters a column needs
BIDIRECTIONAL = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """The text without what could move the cursor, change colours or turn the direction of writing."""
    return "".join(
        character
        for character in text
        if character in "\n\t" or (unicodedata.category(character) != "Cc" and character not in BIDIRECTIONAL)
    )


@dataclass
class Chat:
    """A conversation with some arms: what is set, and what was said."""

    run: Run
    model: Any
    arms: list[Ready]
    seed: int
    longest: int  # tokens an answer
    temperature: float = 0.0
    system: str | None = None
    turns: list[dict[str, Any]] = field(default_factory=list)  # of this conversation
    said: list[dict[str, Any]] = field(default_factory=list)  # of all conversations
    saved: int = 0  # how many of those are in the file
    file: str = field(default_factory=lambda: f"{re.sub('[^0-9T]', '', store.now()[:19])}-{os.getpid()}.jsonl")

    def messages(self, arm: Ready, prompt: str) -> list[dict[str, str]]:
        """What an arm is asked: as many of the last turns, with its own answers, as fit, and the prompt.

        BadInput for a prompt that does not fit by itself.
        """
        config = self.model.base.config.get_text_config()
        room = (getattr(config, "max_position_embeddings", None) or sys.maxsize) - self.longest
        for first in range(len(self.turns) + 1):
            history = []
            for turn in self.turns[first:]:
                history.append({"role": "user", "content": turn["prompt"]})
                history.append({"role": "assistant", "content": turn["answers"][arm.name]["text"]})
            messages = as_messages(prompt, arm.told(self.system), history)
            size = len(self.model.prompt_ids(messages))
            if size <= room:
                return messages
        raise BadInput(f"too long: {size} tokens, and {arm.name} has room for {room}")

    def ask(self, prompt: str, show: Callable[[dict[str, Answer]], None]) -> dict[str, Answer]:
        """Every arm's answer; show(answers so far) comes after each token. The turn is kept when all have answered."""
        from repro.models.stream import stream

        asked = [self.messages(arm, prompt) for arm in self.arms]
        luck = derive(self.seed, "chat", len(self.turns))
        answers: dict[str, Answer] = {}
        for arm, messages in zip(self.arms, asked, strict=True):
            arm.put_on(self.model)
            with contextlib.closing(
                stream(self.model, messages, max_new_tokens=self.longest, temperature=self.temperature, seed=luck)
            ) as growing:
                for answer in growing:
                    answers[arm.name] = answer
                    show(answers)
        turn = {
            "time": store.now(), "seed": self.seed, "system": self.system, "temperature": self.temperature,
            "turn": len(self.turns), "prompt": prompt,
            "answers": {name: vars(answer) for name, answer in answers.items()},
        }  # fmt: skip
        self.turns.append(turn)
        self.said.append(turn)
        return answers

    # commands: each returns what to tell

    def do(self, line: str) -> str:
        """Does a command. BadInput for what is none, or can't be done."""
        word, _, rest = line[1:].partition(" ")
        commands = {"help": lambda text: HELP, "system": self._system, "arms": self._arms, "seed": self._seed,
                    "temperature": self._temperature, "reset": self._reset, "save": self._save}  # fmt: skip
        if word not in commands:
            raise BadInput(f"/{word}: no such command; /help lists them")
        return commands[word](rest.strip())

    def _system(self, text: str) -> str:
        self.system = text or None
        return f"system prompt: {text}" if text else "no system prompt"

    def _arms(self, text: str) -> str:
        if not text:
            there, lacking = self.run.ready(self.seed)
            return "; ".join([f"can answer: {', '.join(there)}", *(f"{name} {why}" for name, why in lacking.items())])
        self.arms, lines = self.run.choose(text, self.seed)
        return "; ".join([*lines, f"arms {self._names()}", self._reset("")])

    def _seed(self, text: str) -> str:
        if not text.isdigit():
            raise BadInput(f"/seed: one of {', '.join(map(str, self.run.seeds))}")
        arms, lines = self.run.choose(self._names(","), int(text))
        self.arms, self.seed = arms, int(text)
        return "; ".join([*lines, f"seed {text}, arms {self._names()}", self._reset("")])

    def _names(self, between: str = ", ") -> str:
        return between.join(arm.name for arm in self.arms)

    def _temperature(self, text: str) -> str:
        self.temperature = _temperature(text)
        return f"temperature {self.temperature:g}"

    def _reset(self, text: str) -> str:
        self.turns = []
        return "a new conversation"

    def _save(self, text: str) -> str:
        count = len(self.said) - self.saved
        if not count:
            return "nothing new to save"
        path = self.run.path / "chats" / self.file
        try:
            path.parent.mkdir(exist_ok=True)
            store.write_jsonl(path, self.said)
        except OSError as error:
            raise BadInput(f"/save: can't write to {path.parent}: {error.strerror}") from None
        self.saved = len(self.said)
        return f"saved {count} turn{'s' * (count > 1)}: {path}"


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise BadInput(f"temperature {text}: a number from 0 to 2 is needed")
    return value


# the screen -----------------------------------------------------------------------------------------------------------


def columns(arms: list[str], answers: dict[str, Answer], longest: int, width: int) -> RenderableType:
    """The answers so far side by side; one below the other where the screen is too narrow for that."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    texts = {arm: Text(_words(answers.get(arm), longest)) for arm in arms}
    abreast = width // NARROWEST >= len(arms)
    table = Table(box=box.SIMPLE_HEAD, expand=True, show_header=abreast, show_lines=not abreast)
    if not abreast:
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold", ratio=1)
        for arm, text in texts.items():
            table.add_row(arm, text)
        return table
    for arm in arms:
        table.add_column(Text(arm), overflow="fold", ratio=1)
    table.add_row(*texts.values())
    return table


def _words(answer: Answer | None, longest: int) -> str:
    if answer is None:
        return "…"
    cut = f" [cut at {longest} tokens]" if not answer.finished and answer.tokens >= longest else ""
    return (plain(answer.text) or "(says nothing)") + cut


def _on_screen(chat: Chat, prompt: str, console: Console) -> None:
    from rich.live import Live

    names = [arm.name for arm in chat.arms]
    with Live(console=console, transient=True, refresh_per_second=12) as live:
        answers = chat.ask(prompt, lambda so_far: live.update(columns(names, so_far, chat.longest, console.width)))
    console.print(columns(names, answers, chat.longest, console.width))


def _in_lines(chat: Chat, prompt: str) -> None:
    print(f"> {plain(prompt)}", flush=True)
    answers = chat.ask(prompt, lambda so_far: None)
    for name, answer in answers.items():
        print(f"{name}: " + _words(answer, chat.longest).replace("\n", "\n  "), flush=True)


def _prompts(terminal: bool) -> Iterator[str]:
    if not terminal:
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  the arrow keys work while one types
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


def talk(
    path: Path, arms: str | None = None, seed: int | None = None, *, temperature: float = 0.0, system: str | None = None
) -> None:
    """Talks until /quit or the end of the input: answers go to stdout, all else to stderr.

    Raises BadInput for a run, arm or seed that is not there; what goes wrong later is said, and the talk goes on.
    """
    from rich.console import Console

    run = open_run(path)
    seed = run.seeds[0] if seed is None else seed
    chosen, lines = run.choose(arms, seed)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text would end the talk
    temperature = _temperature(str(temperature))
    longest = int(run.experiment["evaluation"].get("max_new_tokens", 256))
    chat = Chat(run, run.load_model(), chosen, seed, longest, temperature, system)
    for line in [*lines, f"{run.path.name}, seed {seed}, arms {chat._names()}; /help lists the commands"]:
        print(line, file=sys.stderr)
    for line in map(str.strip, _prompts(terminal)):
        if not line:
            continue
        if line == "/quit":
            return
        try:
            if line.startswith("/"):
                print(plain(chat.do(line)), file=sys.stderr, flush=True)
            elif terminal:
                _on_screen(chat, line, Console())
            else:
                _in_lines(chat, line)
        except ReproError as error:
            print("\n".join(error.lines), file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("stopped: this turn is left out", file=sys.stderr, flush=True)
