"""Interleaved runs and the lines that report them."""

import statistics
from collections.abc import Callable, Mapping

RUNS = 5  # of each contender, in turn, so that a drifting machine hits all alike


def interleaved(contenders: Mapping[str, Callable[[], float]], runs: int = RUNS) -> dict[str, float]:
    """The median figure of each contender; every round runs each of them once. One round before is not counted."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(runs + 1):
        for name, measure in contenders.items():
            figure = measure()
            if run:
                figures[name].append(figure)
    return {name: statistics.median(values) for name, values in figures.items()}


class Report:
    """Prints one line a ratio and remembers whether every bound held."""

    def __init__(self) -> None:
        self.failed = False

    def ratio(self, title: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """A ratio with its bound."""
        holds = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        bound = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
        self.failed |= not holds
        print(f"{'ok  ' if holds else 'FAIL'} {title}: {value:.2f} (bound {bound})", flush=True)

    def figure(self, title: str, value: float, unit: str) -> None:
        """A figure for the record."""
        print(f"     {title}: {value:,.1f} {unit}", flush=True)
