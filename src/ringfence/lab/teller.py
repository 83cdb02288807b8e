"""How the demo tells its story: readable on a terminal, plain lines in a pipe, nothing beside --json.

A line says when it was (seconds since the beginning), so that waits can be seen for what they are."""

import time
from typing import TextIO

from ringfence.lab.demo_report import COLUMNS, DemoReport, plain_table, rows

STYLES = {
    "victim": "yellow", "fence-lied": "bold red", "incident": "red", "evidence": "green", "purged": "green",
    "lockspace-runs": "green",
}  # fmt: skip


class Teller:
    """Plain lines.  Args: out: None tells nothing."""

    def __init__(self, out: TextIO | None) -> None:
        self._out = out
        self._began = time.monotonic()

    def act(self, title: str) -> None:
        self._line("")
        self._line(f"== {title}")

    def say(self, text: str) -> None:
        """The narrator."""
        self._line(f"{self._clock()} {text}")

    def command(self, prompt: str, words: str, lines: list[str], code: int = 0) -> None:
        """A command as its user typed it, and what it printed."""
        self._line(f"{self._clock()} {prompt}$ {words}")
        for line in lines:
            self._line(f"           {line}")
        if code:
            self._line(f"           (exit {code})")

    def happened(self, kind: str, what: str) -> None:
        """An event that a daemon recorded."""
        self._line(f"{self._clock()}   {kind:<14} {what}")

    def table(self, report: DemoReport) -> None:
        self._line("")
        for line in plain_table(report):
            self._line(line)

    def verdict(self, ok: bool, text: str) -> None:
        self._line(f"{'as promised' if ok else 'NOT AS PROMISED'}: {text}")

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:6.1f} s"

    def _line(self, text: str) -> None:
        if self._out is not None:
            print(text, file=self._out, flush=True)


class RichTeller(Teller):
    """Colours and rules, on a terminal."""

    def __init__(self) -> None:
        super().__init__(None)
        # Imported here: only a terminal needs it.
        from rich.console import Console

        self._console = Console(highlight=False)

    def act(self, title: str) -> None:
        self._console.print()
        self._console.rule(f"[bold]{title}", align="left")

    def say(self, text: str) -> None:
        self._print(f"{self._clock()} {text}", "")

    def command(self, prompt: str, words: str, lines: list[str], code: int = 0) -> None:
        self._print(f"{self._clock()} {prompt}$ {words}", "bold cyan")
        for line in lines:
            self._print(f"           {line}", "red" if code else "")
        if code:
            self._print(f"           (exit {code})", "dim")

    def happened(self, kind: str, what: str) -> None:
        self._print(f"{self._clock()}   {kind:<14} {what}", STYLES.get(kind, "dim"))

    def table(self, report: DemoReport) -> None:
        from rich.table import Table

        table = Table(header_style="bold")
        for title, field in COLUMNS:
            table.add_column(title, justify="left" if field == "name" else "right")
        for act, cells in zip(report.acts, rows(report), strict=True):
            table.add_row(*cells, style="" if act.ok else "bold red")
        self._console.print()
        self._console.print(table)

    def verdict(self, ok: bool, text: str) -> None:
        self._print(
            f"{'as promised' if ok else 'NOT AS PROMISED'}: {text}", "bold green" if ok else "bold red"
        )

    def _print(self, text: str, style: str) -> None:
        self._console.print(text, style=style or None, markup=False)
