"""Every file of a run folder, damaged in every way: what do those who read it say? `--keep` writes the CSV.

    python benchmarks/damage.py [--flips 8] [--seed 0] [--keep]

A small run (drawn pictures, a small network, two phases, four epochs) is trained three times over: finished and evaluated;
finished with its state deleted; and stopped in the middle of an epoch. In each of them every file is in turn gone, empty,
cut, zeroed, garbage, a folder, or has one bit flipped (at the first byte, in the header, in the middle, at the last byte and
at random places). Then somebody resumes the training, loads the best and the last weights, predicts, keeps the results, and
analyzes from the recommended table. Each answer is one of

same         what it would be without the damage, and nothing was said: the file was not needed, or nothing in it is
recovered    what it would be without the damage, and a line says what was restored or read in its place
message      one error of the kind that the command line prints, which names a file of the run
unclear      such an error that names no file of the run
traceback    any other exception
difference   another result, and no error

The exit code is 1 if there is any of the last three. `damages` counts files x ways, `answers` what was asked of them.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import pandas as pd
import torch

from resnet_tutorial.engine import fit as training
from resnet_tutorial.workshop.analysis import analyze
from resnet_tutorial.engine.checksums import DamageWarning
from resnet_tutorial.evaluation import evaluate, predict
from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.engine.recipes import Recipe
from resnet_tutorial.workshop.results import keep_run
from resnet_tutorial.engine.saved_runs import comparable, load_run

BAD = ["unclear", "traceback", "difference"]
OUTCOMES = ["same", "recovered", "message", *BAD]


def small_recipe(folder: Path) -> Recipe:
    "A run of four epochs in two phases that trains in about a second; its best epoch is not its last."
    values = {"data": {"n": 40, "size": 48, "split": [24, 8, 8]}, "image_size": 32, "batch_size": 8, "learning_rate": 0.2}
    values |= {"precision": "float32", "device": "cpu", "deterministic": True, "save_every_steps": 1, "recommend_analysis": True}
    phases = [{"name": "probe", "epochs": 1, "train": ["fc.*"]}, {"name": "full", "epochs": 3}]
    return Recipe(name="small", epochs=4, phases=phases, out_dir=str(folder), **values)


def make_runs(root: Path) -> dict[str, Path]:  # name -> run folder
    "The three runs that are damaged."
    runs = {name: root / name / "run" for name in ("finished", "without_state", "stopped")}
    evaluate(training.fit(small_recipe(runs["finished"]), say=str))
    shutil.copytree(root / "finished", root / "without_state")
    shutil.rmtree(runs["without_state"] / "state")
    commit = training.commit

    def commit_and_stop(folder: Path, state: dict) -> None:
        commit(folder, state)
        if len(state["history"]) == 2 and state["place"].get("steps") == 2:
            raise KeyboardInterrupt

    with mock.patch.object(training, "commit", commit_and_stop), contextlib.suppress(KeyboardInterrupt):
        training.fit(small_recipe(runs["stopped"]), say=str)
    return runs


def flip(path: Path, position: int, bit: int) -> None:
    "Turn one bit of a file round."
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def as_folder(path: Path) -> None:
    "Put a folder in the file's place."
    path.unlink()
    path.mkdir()


def ways(size: int, flips: int, dice: random.Random) -> dict[str, Callable[[Path], None]]:
    "All ways to damage a file of so many bytes."
    made = {
        "gone": lambda path: path.unlink(),
        "empty": lambda path: path.write_bytes(b""),
        "cut in half": lambda path: path.write_bytes(path.read_bytes()[: size // 2]),
        "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "zeroed": lambda path: path.write_bytes(b"\0" * size),
        "end zeroed": lambda path: path.write_bytes(path.read_bytes()[: 2 * size // 3] + b"\0" * (size - 2 * size // 3)),
        "garbage": lambda path: path.write_bytes(random.Random(size).randbytes(size)),
        "text": lambda path: path.write_text("<html>404 not found</html>\n", encoding="utf-8"),
        "folder": as_folder,
    }
    places = [0, min(8, size - 1), min(60, size - 1), size // 4, size // 2, 3 * size // 4, size - 1]
    places += [dice.randrange(size) for _ in range(max(0, flips - len(places)))]
    for place in places[:flips]:
        bit = dice.randrange(8)
        made[f"bit {bit} of byte {place}"] = lambda path, place=place, bit=bit: flip(path, place, bit)
    return made


def weights_of(folder: Path, checkpoint: str) -> list:
    "What `load_run` gives, as plain values."
    run = load_run(folder, checkpoint, "cpu")
    tensors = {name: value.tolist() for name, value in run.model.state_dict().items()}
    return [tensors, run.history.to_csv(lineterminator="\n"), comparable(run.recipe), run.class_names, run.normalization]


def resumed(folder: Path, said: list[str]) -> list:
    "What a resumed training leaves behind."
    training.fit(small_recipe(folder), resume=True, say=said.append)
    return [(folder / name).read_bytes() for name in ("best.safetensors", "last.safetensors", "history.csv")]


def kept(folder: Path) -> list:
    "What `resnet-tutorial results` keeps of a run, times left out where the run was evaluated."
    with tempfile.TemporaryDirectory() as place:
        target = keep_run(folder, place)
        return [(target / name).read_bytes() for name in ("recipe.yaml", "history.csv", "scores.json", "predictions.csv")]


def analyzed(folder: Path) -> str:
    "The text that the recommended table asks for."
    with tempfile.TemporaryDirectory() as place:
        return analyze(folder / "small_analysis_recommended.csv", place, count=0).text


def questions(run: str) -> dict[str, Callable[[Path, list[str]], object]]:
    "What is asked of a run: name -> folder, list for what is said -> plain values."
    asked = {
        "load best": lambda folder, said: weights_of(folder, "best"),
        "load last": lambda folder, said: weights_of(folder, "last"),
        "predict": lambda folder, said: predict(load_run(folder, device="cpu")).to_csv(lineterminator="\n"),
        "analyze": lambda folder, said: analyzed(folder),
        "resume": resumed,
    }
    if run != "stopped":
        asked = {"keep results": lambda folder, said: kept(folder), **asked}
    return asked


def answer(question: Callable, folder: Path, expected: object, ordinary: list[str]) -> tuple[str, str]:  # outcome, words
    "Ask, and compare."
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            found = question(folder, said)
        except (ValueError, OSError, ModuleNotFoundError, FloatingPointError) as error:  # what the command line catches
            words = str(error)
            return "message" if str(folder) in words else "unclear", words
        except BaseException as error:
            return "traceback", f"{type(error).__name__}: {error}"
    words = "; ".join([*(str(w.message) for w in caught if w.category is DamageWarning), *(text for text in said if text not in ordinary)])
    if found != expected:
        return "difference", words
    return "recovered" if words else "same", words


def main() -> None:
    "Damage, ask, count."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=8, help="bits flipped in each file, one at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the random places")
    parser.add_argument("--keep", action="store_true", help="write the tables to benchmarks/results/")
    options, rows = parser.parse_args(), []
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        runs = make_runs(Path(root))
        for run, whole in runs.items():
            rows += damage_run(run, whole, options.flips, random.Random(options.seed))
    table = pd.DataFrame(rows)
    table["outcome"] = pd.Categorical(table.outcome, OUTCOMES)
    counts = table.groupby(["run", "file", "outcome"], observed=False, sort=False).size().unstack("outcome")
    counts.columns = counts.columns.astype(str)
    counts = counts.loc[counts.sum(axis=1) > 0].sort_index()
    counts.insert(0, "damages", table.groupby(["run", "file"]).damage.nunique())
    counts.loc[("all", ""), :] = counts.sum()
    print(counts.astype(int).reset_index().to_string(index=False))
    for row in table[table.outcome.isin(BAD)].itertuples():
        print(f"{row.outcome}: {row.run}, {row.file}, {row.damage}, {row.question}: {row.words[:300]}")
    if options.keep:
        table = counts.astype(int).reset_index()
        write_names_csv(table, Path(__file__).parent / "results" / "damage.csv")
    sys.exit(int(table.outcome.isin(BAD).any()))


def damage_run(run: str, whole: Path, flips: int, dice: random.Random) -> list[dict]:
    "All damages of one run: a row for each answer."
    rows, asked, ordinary, expected = [], questions(run), [], {}
    place = whole.with_name("copy")
    for name, question in asked.items():
        shutil.copytree(whole, place)
        expected[name] = question(place, ordinary)
        shutil.rmtree(place)
    files = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file() and path.suffix != ".png")
    for file in [name for name in files if not Path(name).name.startswith(".")]:
        for damage, apply in ways((whole / file).stat().st_size, flips, dice).items():
            shutil.copytree(whole, place)
            apply(place / file)
            for name, question in asked.items():
                if name != "analyze" or file.endswith("recommended.csv"):
                    outcome, words = answer(question, place, expected[name], ordinary)
                    rows.append({"run": run, "file": file, "damage": damage, "question": name, "outcome": outcome, "words": words})
            shutil.rmtree(place)
        print(f"{run}: {file}", flush=True, file=sys.stderr)
    return rows


if __name__ == "__main__":
    main()
