"""Several jobs at a time against one after another; `--keep` writes benchmarks/results/jobs.csv.

    python benchmarks/jobs.py [--rounds 3] [--jobs 2] [--cases book trainings] [--notebooks 05 06] [--keep]

Two cases: the book (`resnet-tutorial execute`, all chapters unless --notebooks names some) and a sweep of 24 small trainings
(`resnet-tutorial sweep`). The ways take turns, in an order that changes from round to round. Each is a command in a process of
its own, in an empty folder. Counted are wall time and the processor time of the command and of everything that it started.
The ratio is that of the wall times; kept is the median of the rounds, with the lowest and the highest ratio of a round.
Everything has one thread. Leave the machine alone meanwhile: the load at the start of each round is printed and kept.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.engine.runtime import choose_runtime, environment

TRAININGS = ["sweep", "--recipe", "embedded_pets", "--set", "seed=0..23", "--set", "epochs=2", "--set", "data={n: 240}"]


def command(case: str, jobs: int, notebooks: list[str], folder: Path) -> list[str]:
    "The command of a case, with so many jobs at a time."
    words = TRAININGS if case == "trainings" else ["execute", *notebooks]
    return [sys.executable, "-m", "resnet_tutorial", *words, "--jobs", str(jobs), "--out", str(folder / "out")]


def measured(words: list[str]) -> tuple[float, float]:  # wall seconds, CPU seconds with all descendants
    "Run a command to its end; CalledProcessError if it fails."
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, encoding="utf-8", errors="replace")
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def take_turns(case: str, jobs: int, notebooks: list[str], rounds: int) -> pd.DataFrame:
    "Measure one at a time and several at a time in turns."
    rows = []
    for turn in range(rounds):
        load = psutil.getloadavg()[0]
        for way in (1, jobs) if turn % 2 == 0 else (jobs, 1):
            with tempfile.TemporaryDirectory() as folder:
                wall, cpu = measured(command(case, way, notebooks, Path(folder)))
            rows.append({"round": turn, "jobs": way, "wall_seconds": wall, "cpu_seconds": cpu, "load": load})
            print(case, rows[-1], flush=True)
    return pd.DataFrame(rows)


def summarized(case: str, table: pd.DataFrame) -> pd.DataFrame:
    "A row for each way: medians, and how many times faster than one after another."
    wall = table.pivot(index="round", columns="jobs", values="wall_seconds")
    ratios = wall.rdiv(wall[1], axis=0)
    medians = table.groupby("jobs")[["wall_seconds", "cpu_seconds", "load"]].median()
    found = medians.assign(ratio=ratios.median(), low=ratios.min(), high=ratios.max(), rounds=len(wall)).reset_index()
    found.insert(0, "way", "jobs " + found.pop("jobs").astype(str))
    found.insert(0, "case", case)
    return found


def main() -> None:
    "Measure the cases that were asked for."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each way runs")
    parser.add_argument("--jobs", type=int, default=2, help="jobs at a time")
    parser.add_argument("--cases", nargs="+", choices=("book", "trainings"), default=["trainings", "book"])
    parser.add_argument("--notebooks", nargs="*", default=[], help="chapters of the book; none: all")
    parser.add_argument("--keep", action="store_true", help="write the table to benchmarks/results/")
    asked = parser.parse_args()
    tables = [summarized(case, take_turns(case, asked.jobs, asked.notebooks, asked.rounds)) for case in asked.cases]
    facts = environment(choose_runtime("cpu"))
    table = pd.concat(tables).assign(system=facts["system"], torch=facts["torch"], cpu=facts["cpu_capability"], cores=os.cpu_count())
    print(table.round(2).to_string(index=False))
    if asked.keep:
        write_names_csv(table, Path(__file__).parent / "results" / "jobs.csv", float_format="%.4g")


if __name__ == "__main__":
    main()
