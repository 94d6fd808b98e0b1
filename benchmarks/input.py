"""Pictures made ready for a network in a second of processor time; `--keep` writes benchmarks/results/input.csv.

    OMP_NUM_THREADS=1 python benchmarks/input.py [--rounds 7] [--keep]

Each case gives the same work to torchvision's transforms in a DataLoader and to our loader: from pictures in memory (32 px)
or from JPEG files (224 px) to augmented, normalised float32 batches. The ways take turns in one process on one thread.
Counted is process CPU time, threads included; kept is the median of the rounds, with the lowest and the highest
ratio of a round: with 7 rounds the true median lies between them with a probability of 98 %.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from turns import finish, read_options, take_turns

from data_prep import prepare
from data_prep.drawn import draw
from resnet_tutorial.engine.augmentation import AUGMENTATIONS
from resnet_tutorial.data import IMAGENET, EpochSampler, ImageData, Loader, Pictures, first_of, make_loader

BATCH = 128


class Transformed(Dataset):
    "The usual way: a chain of torchvision transforms for each item; an item is a tensor, a PIL image or a file."

    def __init__(self, items, labels, transform):
        self.items, self.labels, self.transform = items, labels, transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        if isinstance(item, Path):
            with Image.open(item) as image:
                item = image.convert("RGB")
        return self.transform(item), self.labels[index]


def chain(size, before=(), cutout=False):
    "Crop, flip, normalise and perhaps cutout, as torchvision spells them."
    steps = [*before, v2.RandomCrop(size, padding=4), v2.RandomHorizontalFlip(), v2.ToImage()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET.mean, IMAGENET.std)]
    return v2.Compose(steps + [v2.RandomErasing(1, (1 / 16, 1 / 16), (1, 1))] * cutout)


def small_pictures(preset, cutout, count=10_000):
    "Ways of reading 32 px pictures that lie in memory."
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    labels, transform = torch.zeros(count, dtype=torch.int64), chain(32, cutout=cutout)
    pil = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    ours = Pictures(images, labels, IMAGENET, AUGMENTATIONS[preset](32))
    return {
        "torchvision v2, PIL images": lambda: DataLoader(Transformed(pil, labels, transform), BATCH, shuffle=True),
        "torchvision v2, tensors": lambda: DataLoader(Transformed(images, labels, transform), BATCH, shuffle=True),
        "whole batches": lambda: Loader(ours, BATCH, sampler=EpochSampler(count, True), collate_fn=first_of),
    }, count


def photographs(folder, count=192, side=400):
    "Ways of reading 224 px pictures from JPEG files, in the first epoch and later."
    for i, drawing in enumerate(draw("embedded_pets", count, size=side)):
        path = folder / "photos" / drawing.class_name / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(drawing.image)).save(path, quality=90)
    data = ImageData(prepare("class_folders", folder / "data", folder / "photos", split=(0.96, 0.02, 0.02)))
    paths, labels = [data.root / path for path in data.rows("train").path], data.labels("train")
    transform = chain(224, before=[v2.Resize((224, 224))])
    common = {"size": 224, "batch_size": 32, "normalization": IMAGENET, "augment": "crop_flip"}

    def first_epoch():
        shutil.rmtree(folder / "data.cache", ignore_errors=True)
        return make_loader(data, "train", **common)

    return {
        "torchvision v2, files": lambda: DataLoader(Transformed(paths, labels, transform), 32, shuffle=True),
        "cache, first epoch (written)": first_epoch,
        "cache, later epochs": lambda: make_loader(data, "train", **common),
    }, len(paths)


def measure(make_loader) -> float:
    "Process CPU seconds of making a loader and reading it once."
    start = time.process_time()
    for _ in make_loader():
        pass
    return time.process_time() - start


def compare(case, ways, count, rounds):
    "A row a way: pictures in a CPU second, and its ratio to the first way."
    table = take_turns(case, ways, measure, rounds)
    table.insert(2, "images_per_cpu_second", count / table.pop("seconds"))
    return table


def main():
    options = read_options(__doc__, rounds=7)
    start = time.perf_counter()
    tables = [
        compare("32 px, crop, flip", *small_pictures("crop_flip", False), options.rounds),
        compare("32 px, crop, flip, cutout", *small_pictures("crop_flip_cutout", True), options.rounds),
    ]
    with tempfile.TemporaryDirectory() as folder:
        tables.append(compare("224 px, JPEG files", *photographs(Path(folder)), options.rounds))
    print(f"{time.perf_counter() - start:.0f} s")
    found = pd.concat(tables).round({"images_per_cpu_second": 0, "ratio": 2, "low": 2, "high": 2})
    finish(found, "input", options.keep)


if __name__ == "__main__":
    main()
