"""What benchmarks/gpu.sh writes down beside the tables of the benchmarks themselves.

    python benchmarks/gpu_records.py environment OUT        environment.json: versions, hardware and settings
    python benchmarks/gpu_records.py recipe OUT             depth_160.yaml: recipes/depth_full.yaml, larger
    python benchmarks/gpu_records.py book OUT SUMMARY.JSON  book.csv: each executed notebook, its status and its seconds

OUT is a folder; a file of the same name in it is replaced."""

import json
import sys
from pathlib import Path

import pandas as pd

from resnet_tutorial.engine.files import read_utf8, write_text
from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.engine.recipe_files import load_recipe
from resnet_tutorial.engine.recipe_text import yaml_text
from resnet_tutorial.engine.runtime import choose_runtime, environment

LARGER = {
    "name": "depth_160",
    "data": {"n": 14_000, "size": 160, "split": [12_000, 1_000, 1_000]},
    "image_size": 160,
    "epochs": 10,
    "batch_size": 64,
}


def write_environment(out: Path) -> None:
    "Describe this machine as every run folder does."
    write_text(out / "environment.json", json.dumps(environment(choose_runtime()), indent=1) + "\n")


def write_recipe(out: Path) -> None:
    "The recipe of the big depth comparison with 12,000 training images of 160 pixels; a run folder is chosen at training."
    values = load_recipe("depth_full", overrides=LARGER).model_dump(mode="json", exclude={"out_dir", "data_root"})
    write_text(out / "depth_160.yaml", "# recipes/depth_full.yaml for a machine with a GPU, as benchmarks/gpu.sh changes it.\n" + yaml_text(values))


def write_book(out: Path, summary: Path) -> None:
    "Name, status and seconds of each notebook that `resnet-tutorial execute` was asked for."
    entries = json.loads(read_utf8(summary))["notebooks"]
    write_names_csv(pd.DataFrame([{key: entry[key] for key in ("name", "status", "seconds")} for entry in entries]), out / "book.csv")


def main() -> None:
    writers = {"environment": write_environment, "recipe": write_recipe, "book": write_book}
    if len(sys.argv) < 3 or sys.argv[1] not in writers:
        sys.exit(__doc__)
    writers[sys.argv[1]](*map(Path, sys.argv[2:]))


if __name__ == "__main__":
    main()
