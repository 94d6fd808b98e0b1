"""Kill a training (SIGKILL) and resume it, over and over; it must end in the same bits. `--keep` writes the CSV.

    python benchmarks/kills.py [--kills 60] [--seed 0] [--keep]

One small run (two phases, averaged weights, a state after every step) is left alone. Others are killed, half of them at chosen
moments and half at random ones, and resumed until they are done. Chosen are, for every file that the run writes: inside the
write (half of the bytes are there), before the new file gets its name, and right after it has it. Counted are

kills        processes that were really killed
same         runs that ended in the bits of the one that was left alone: best and last weights, history, state of the folder
readable     looks at the folder right after a kill that found a run, or nothing yet, and no damaged file
leftovers    unfinished files that were still there when the run was done

The exit code is 1 unless all runs are the same, all looks found a readable folder, and nothing was left over.
"""

import argparse
import multiprocessing
import multiprocessing.forkserver
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"

import pandas as pd

from resnet_tutorial.engine import files
from resnet_tutorial.engine import fit as training
from resnet_tutorial.engine.checksums import read_checked, read_sums
from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.engine.recipes import Recipe
from resnet_tutorial.engine.saved_runs import load_run

MOMENTS = ("inside", "before", "after")


def small_recipe(folder: Path) -> Recipe:
    "A run of three epochs in two phases that trains in about a second."
    values = {"data": {"n": 40, "size": 48, "split": [24, 8, 8]}, "image_size": 32, "batch_size": 8, "ema_decay": 0.9}
    values |= {"precision": "float32", "device": "cpu", "deterministic": True, "save_every_steps": 1, "augment": "crop_flip"}
    phases = [{"name": "probe", "epochs": 1, "train": ["fc.*"]}, {"name": "full", "epochs": 2}]
    return Recipe(name="small", epochs=3, phases=phases, out_dir=str(folder), **values)


def die() -> None:
    "As if the machine had lost its power."
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(folder: Path, number: int, moment: str) -> None:
    "Arrange that this process dies at a moment of the `number`-th write into a folder."
    write, count = files.write_safely, []

    def write_and_die(path: str | Path, make: Callable[[Path], object]) -> None:
        if not Path(path).is_relative_to(folder) or len(count.append(path) or count) < number:
            return write(path, make)

        def make_half(part: Path) -> None:
            make(part)
            if moment == "inside":
                os.truncate(part, part.stat().st_size // 2)
            if moment in ("inside", "before"):
                die()

        write(path, make_half)
        die()

    for name, module in list(sys.modules.items()):
        if name.startswith("resnet_tutorial") and getattr(module, "write_safely", None) is write:
            module.write_safely = write_and_die


def work(folder: str, number: int, moment: str) -> None:
    "Train or go on; die where that is asked for."
    if number:
        kill_at(Path(folder), number, moment)
    training.fit(small_recipe(Path(folder)), resume=True, say=str)


def child(folder: Path, seconds: float | None = None, number: int = 0, moment: str = "") -> int:
    "The exit code of a process that trains; it is killed after so many seconds, or at a moment of a write."
    process = multiprocessing.get_context("forkserver").Process(target=work, args=(str(folder), number, moment))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def outcome(folder: Path) -> dict[str, bytes]:
    "What must be the same, bit by bit."
    names = ("best.safetensors", "last.safetensors", "history.csv")
    found = {name: (folder / name).read_bytes() for name in names}
    return found | {"files": "\n".join(sorted(path.name for path in folder.rglob("*") if path.name[0] != ".")).encode()}


def is_readable(folder: Path) -> bool:
    "Whether a folder that was just killed holds a run, or none yet, and no damage."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for name in read_sums(folder):
                if (folder / name).exists():
                    read_checked(folder, name)
            load_run(folder, "last", "cpu")
        except FileNotFoundError:
            return True
        except Exception as error:
            print(f"{folder.name}: {type(error).__name__}: {error}")
            return False
    return True


def writes_of(folder: Path) -> int:
    "How many files an undisturbed run writes."
    count, write = [], files.write_safely
    for module in [module for name, module in sys.modules.items() if name.startswith("resnet_tutorial")]:
        if getattr(module, "write_safely", None) is write:
            module.write_safely = lambda path, make: (count.append(path) if Path(path).is_relative_to(folder) else None, write(path, make))
    training.fit(small_recipe(folder), say=str)
    for module in [module for name, module in sys.modules.items() if name.startswith("resnet_tutorial")]:
        if hasattr(module, "write_safely"):
            module.write_safely = write
    return len(count)


def main() -> None:
    "Kill, resume, compare."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--keep", action="store_true", help="write the table to benchmarks/results/")
    options = parser.parse_args()
    dice, rows = random.Random(options.seed), []
    multiprocessing.get_context("forkserver").set_forkserver_preload(["resnet_tutorial.engine.fit"])
    with tempfile.TemporaryDirectory() as root:
        total, expected = writes_of(Path(root, "whole")), outcome(Path(root, "whole"))
        child(Path(root, "warm"))  # the process that the others are forked from has started
        began = time.monotonic()
        child(Path(root, "timed"))
        seconds = time.monotonic() - began
        chosen = [(number, moment) for number in range(1, total + 1) for moment in MOMENTS]
        chosen = sorted(dice.sample(chosen, min(len(chosen), options.kills - options.kills // 2)))
        for number, moment in chosen:
            folder = Path(root, f"{number}_{moment}")
            rows.append(go(folder, f"{moment} the write", [{"number": number, "moment": moment}], expected))
        while sum(row["kills"] for row in rows) < options.kills:
            plans = [{"seconds": seconds * dice.random()} for _ in range(5)]
            rows.append(go(Path(root, f"random{len(rows)}"), "at random", plans, expected))
    counts = pd.DataFrame(rows).groupby("moment").sum()
    counts.loc["all"] = counts.sum()
    print(f"{total} writes in a run\n{counts.reset_index().to_string(index=False)}")
    if options.keep:
        table = counts.reset_index()
        write_names_csv(table, Path(__file__).parent / "results" / "kills.csv")
    whole = counts.loc["all"]
    sys.exit(int(whole["same"] < whole["runs"] or whole["readable"] < whole["kills"] or whole["leftovers"] > 0))


def go(folder: Path, moment: str, plans: list[dict], expected: dict) -> dict:
    "One run, killed as planned and then left to finish."
    row = {"moment": moment, "runs": 1, "kills": 0, "readable": 0, "same": 0, "leftovers": 0}
    for plan in plans:
        if child(folder, **plan) == -signal.SIGKILL:
            row["kills"] += 1
            row["readable"] += is_readable(folder)
    if child(folder) == 0:
        row["same"] = int(outcome(folder) == expected)
        row["leftovers"] = len(list(folder.rglob("*.part")))
    if not row["same"]:
        print(f"not the same: {folder.name}")
    return row


if __name__ == "__main__":
    main()
