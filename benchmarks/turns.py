"""Ways of doing the same work take turns: what benchmarks share."""

import os
from collections.abc import Callable

import pandas as pd


def take_turns(
    case: str,  # what the ways have in common
    ways: dict[str, Callable],  # the first is what the others are compared with
    measure: Callable[[Callable], float],  # takes a way, returns process CPU seconds
    rounds: int,
    warm: int = 1,  # runs of each that are not counted: libraries load, choose and allocate what they do once
) -> pd.DataFrame:  # case, way, seconds, and ratio, low, high: how many times faster than the first way
    "The median of the rounds, with the lowest and the highest ratio of a round."
    for way in ways.values():
        for _ in range(warm):
            measure(way)
    seconds = pd.DataFrame([{name: measure(way) for name, way in ways.items()} for _ in range(rounds)])
    ratios = seconds.rdiv(seconds.iloc[:, 0], axis=0)
    columns = {"seconds": seconds.median(), "ratio": ratios.median(), "low": ratios.min(), "high": ratios.max()}
    table = pd.DataFrame(columns).rename_axis("way").reset_index()
    table.insert(0, "case", case)
    print(table.round(4).to_string(index=False), f"\nload {os.getloadavg()[0]:.1f}\n", flush=True)
    return table
