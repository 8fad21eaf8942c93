"""What the demo shows: in colour on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDTH = 110


class Screen:
    """Prints what happens, with the seconds since the beginning; usable from any thread."""

    def __init__(self, *, record: bool = False) -> None:
        self._console = Console(record=record, highlight=False)
        if record or not self._console.is_terminal:
            self._console.width = _WIDTH
        self._lock = threading.Lock()
        self._began = time.monotonic()

    @property
    def past_s(self) -> float:
        """The seconds since the beginning."""
        return time.monotonic() - self._began

    def chapter(self, title: str) -> None:
        """Begin something new."""
        with self._lock:
            self._console.print(f"\n[bold cyan]{escape(title)}[/]", soft_wrap=True)

    def line(self, who: str, what: str, style: str = "") -> None:
        """Show one thing that happened."""
        with self._lock:
            text = f"[dim]{self.past_s:5.1f} s[/]  [bold]{escape(who):<10}[/] [{style or 'default'}]{escape(what)}[/]"
            self._console.print(text, soft_wrap=True)

    def good(self, what: str) -> None:
        """Show that what should have happened has."""
        self.line("✓", what, "green")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table."""
        made = Table(*columns, title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        made.show_header = any(columns)
        for row in rows:
            made.add_row(*map(escape, row))
        with self._lock:
            self._console.print()
            self._console.print(made)

    def save(self, path: Path, title: str) -> None:
        """Write what was shown as a picture (SVG)."""
        self._console.save_svg(str(path), title=title)
