"""Shows a run to a person: a bar for each running stage and one for the whole on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

_PLAIN_PAUSE = 30.0  # seconds between two lines about the same whole, where nobody can see a bar


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8 s`, `2 min 05 s`, `1 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class _Left(TimeRemainingColumn):
    """Time left by the pace so far; before there is a pace, by the estimate (the task's field `expected`, seconds)."""

    def render(self, task: Task) -> Text:
        expected = task.fields.get("expected")
        if expected is None or task.time_remaining is not None:
            return super().render(task)
        return Text(f"~{duration(max(0.0, expected - (task.elapsed or 0.0)))}", style="progress.remaining")


class Display:
    """Bars on stderr. A step's weight is its estimated seconds; the whole's bar adds the weights of what is done.

    `expected` seconds are shown as the time left until there is a pace to go by.
    """

    def __init__(self, console: Console, weights: dict[str, float], expected: float | None = None):
        self._console = console
        self._weights = weights
        self._fractions: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}
        self._begun = time.monotonic()
        self._spoken = self._begun
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            _Left(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            speed_estimate_period=120,
        )
        self._whole = self._progress.add_task("the whole", total=max(sum(weights.values()), 1e-9), expected=expected)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def started(self, key: str, title: str) -> None:
        """A step begins: its bar appears."""
        self._bars[key] = self._progress.add_task(title, total=1.0)

    def moved(self, key: str, done: float, total: float) -> None:
        """A step has done `done` of `total` (steps, answers)."""
        self._fractions[key] = min(1.0, done / max(total, 1e-9))
        if key in self._bars:
            self._progress.update(self._bars[key], completed=self._fractions[key])
        self._draw_whole()

    def ended(self, key: str, line: str) -> None:
        """A step is over, well or not: its bar goes, its line stays."""
        self._fractions[key] = 1.0
        if key in self._bars:
            self._progress.remove_task(self._bars.pop(key))
        self.say(line)
        self._draw_whole()

    def _draw_whole(self) -> None:
        done = sum(self._weights.get(key, 0.0) * fraction for key, fraction in self._fractions.items())
        self._progress.update(self._whole, completed=done)
        moment, total = time.monotonic(), sum(self._weights.values())
        if self._progress.disable and moment - self._spoken > _PLAIN_PAUSE and 0.1 * total < done < total:
            left = (moment - self._begun) * (total - done) / done
            self._spoken = moment
            self.say(f"  {done / total:.0%} of the whole, about {duration(left)} left")
