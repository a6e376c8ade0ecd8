"""A line on stderr that counts what is done."""

from __future__ import annotations

import sys
import time


class Counter:
    """Counts up to a total: on a terminal in one line, elsewhere in a line for each tenth."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start = total, 0, time.time()
        self.is_live = sys.stderr.isatty()

    def update(self) -> None:
        """Count one more."""
        self.done += 1
        if self.is_live or self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            self._write()

    def _write(self) -> None:
        seconds = time.time() - self.start
        left = seconds * (self.total - self.done) / self.done
        text = f"{self.done} of {self.total} models, {seconds:.0f} s, about {left:.0f} s left"
        sys.stderr.write(f"\r{text:<60}" if self.is_live else f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """End the line, with all that have been trained without being asked for one by one."""
        if self.done < self.total:
            self.done = self.total
            self._write()
        if self.is_live and self.done:
            sys.stderr.write("\n")
