"""Interleaved runs and the lines that report them."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work took."""

    seconds: float
    cpu: float  # seconds of the process that did it and of all its children


def median(costs: Iterable[Cost]) -> Cost:
    """The median of each figure."""
    all_costs = list(costs)
    return Cost(statistics.median(c.seconds for c in all_costs), statistics.median(c.cpu for c in all_costs))


def median_ratio(costs: Iterable[Cost], peers: Iterable[Cost]) -> float:
    """The median of each run's seconds against those of the peer's run beside it."""
    return statistics.median(cost.seconds / peer.seconds for cost, peer in zip(costs, peers, strict=True))


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

    def cost(self, title: str, cost: Cost) -> None:
        """Seconds, for the record."""
        print(f"     {title}: {cost.seconds:.2f} s, CPU {cost.cpu:.2f} s", flush=True)

    def note(self, text: str) -> None:
        """How what follows was measured."""
        print(f"     {text}", flush=True)
