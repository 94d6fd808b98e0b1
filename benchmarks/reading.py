"""Images a second of four ways of reading drawn pictures; writes benchmarks/results/reading.csv.

    OMP_NUM_THREADS=1 python benchmarks/reading.py [--rounds 5]

All ways give the same augmented, normalised batches (crop with padding 4, flip, 96 px, batch 32) and take turns in one
process. Counted is process CPU time, the helpers' included; the median of the rounds is kept, with the wall clock beside it.
"""

import argparse
import os
import tempfile
import time

import pandas as pd
import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from resnet_tutorial.data import IMAGENET, make_loader, open_data
from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.engine.runtime import choose_runtime, environment

SIZE, BATCH = 96, 32


class Files(Dataset):
    "The usual way: open, decode and transform a file at every access (torchvision v2 on PIL images)."

    def __init__(self, data):
        self.paths, self.labels = [data.root / path for path in data.rows("train").path], data.labels("train")
        steps = [v2.RandomCrop(SIZE, padding=4), v2.RandomHorizontalFlip()]
        steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        self.transform = v2.Compose([*steps, v2.Normalize(IMAGENET.mean, IMAGENET.std)])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


def measure(loader) -> tuple[float, float]:
    "Process CPU and wall seconds of one pass, helpers included."
    before, wall = os.times(), time.perf_counter()
    for _ in loader:
        pass
    after = os.times()
    return sum(after[:4]) - sum(before[:4]), time.perf_counter() - wall


def main(rounds: int) -> pd.DataFrame:
    "Measure every way in turns and return the table of medians."
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = open_data("embedded_pets", out_dir=folder)
        cached = {"augment": "crop_flip", "size": SIZE, "batch_size": BATCH, "normalization": IMAGENET}
        ways = {
            "files, torchvision v2": DataLoader(Files(data), BATCH, shuffle=True),
            "files, 2 workers": DataLoader(Files(data), BATCH, shuffle=True, num_workers=2),
            "cache, augmented": make_loader(data, "train", **cached),
            "cache, not augmented": make_loader(data, "train", **(cached | {"augment": "none"})),
        }
        for loader in ways.values():
            measure(loader)  # not counted: caches fill, workers import
        rows = [(way, *measure(loader)) for _ in range(rounds) for way, loader in ways.items()]
        count = len(data.rows("train"))
    table = pd.DataFrame(rows, columns=["way", "cpu_seconds", "wall_seconds"]).groupby("way", sort=False).median()
    per_second = count / table.rename(columns=lambda name: f"images_per_{name}"[:-1])
    per_second["ratio"] = per_second.images_per_cpu_second / per_second.images_per_cpu_second.iloc[0]
    return per_second.round(2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    found = main(parser.parse_args().rounds)
    facts = environment(choose_runtime("cpu"))
    print(found.to_string(), f"\nload {psutil.getloadavg()[0]:.1f}; {facts}")
    kept = found.assign(system=facts["system"], torch=facts["torch"], cpu=facts["cpu_capability"])
    write_names_csv(kept, os.path.join(os.path.dirname(__file__), "results", "reading.csv"), index=True)
