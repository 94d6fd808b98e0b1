"""Ways of doing the same work take turns on one thread: what benchmarks share."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import torch

from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.engine.runtime import choose_runtime, environment


def read_options(text: str, rounds: int) -> argparse.Namespace:  # rounds, keep
    "The options of a benchmark with this description; one thread and a seed are set."
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each way runs")
    parser.add_argument("--keep", action="store_true", help="write the table to benchmarks/results/")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return parser.parse_args()


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
    print(table.round(4).to_string(index=False), f"\nload {psutil.getloadavg()[0]:.1f}\n", flush=True)
    return table


def finish(table: pd.DataFrame, name: str, keep: bool) -> None:
    "Say which machine it was, and write the table with it to benchmarks/results/ if it is to be kept."
    facts = environment(choose_runtime("cpu"))
    print(facts)
    if keep:
        machine = {"system": facts["system"], "torch": facts["torch"], "cpu": facts["cpu_capability"]}
        kept = table.assign(**machine, load=round(psutil.getloadavg()[0], 1))
        write_names_csv(kept, Path(__file__).parent / "results" / f"{name}.csv")
