"""Pictures trained in a second, here and in the loops of torchvision, timm and Lightning; `--keep` writes the CSV.

    python benchmarks/training.py [--rounds 5] [--cases resnet18 resnet50 cifar] [--device auto] [--keep] [--out benchmarks/results]

Peers run in their default setting (float32, NCHW) and tuned to ours (autocast to bfloat16, channels last). Two processes on
one thread, pinned to one core, take turns, round after round, so that a busy machine disturbs all ways alike: one holds ours
and everything tuned, so that what our setup tunes in the process is the peers' too; the other the default settings, where
nothing of ours is called. A unit is some steps (forward, backward, update, the loop's own bookkeeping); each way's first unit
is not counted. Counted is process CPU time on a CPU and the wall clock, synchronised, on a CUDA device. In a round every
default setting has one turn and everything tuned has three. The table has medians and, for the median ratio, the interval
between two of the sorted ratios that holds it with a probability of 95 % (with 5 ratios: the lowest and the highest, 94 %).

The peers' loops are written here with their own parts in the structure of their training scripts:
torchvision   references/classification/train.py: smoothed meters, top-1 and top-5 accuracy and loss read at every step
timm          train.py: its optimiser, scheduler, loader with prefetcher and meters; its loss is read at every step as well
Lightning     Trainer.fit over a LightningModule, without checkpoints, logger and progress bar; counted from the first step
              to the last; needs `pip install lightning`, and its rows are left out where that is missing
bare loop     our model, loader and optimiser, and nothing but the five calls of a step

fastai is left out: its Learner adds callbacks to the bare loop and reads with the same DataLoader, so it would repeat the
rows of Lightning, and it brings a plotting and text stack of its own.
"""

import argparse
import importlib.util
import multiprocessing
import os
import time
import traceback
import warnings
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import psutil
import timm.data
import timm.optim
import timm.scheduler
import timm.utils
import torch
import torchvision
from PIL import Image
from scipy.stats import binom
from timm.data.transforms import ToNumpy
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from resnet_tutorial.engine.augmentation import crop_flip
from resnet_tutorial.data import IMAGENET, EpochSampler, Loader, Pictures, first_of
from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.loop import Trainer
from resnet_tutorial.engine.zoo import build_model
from resnet_tutorial.engine.runtime import choose_runtime, environment, keep_memory, setup

MEMORY = ExitStack()
RATE, DECAY, TURNS = 0.01, 1e-4, 3  # TURNS: units of a tuned way in a round


@dataclass(frozen=True)
class Case:
    "A network, its pictures, and how much of it is a unit."

    title: str
    model: str
    size: int
    batch: int
    default_steps: int  # in a unit of a peer's default setting, which is slow
    tuned_steps: int
    classes: int
    goal: float  # ours / peers' default setting

    @property
    def reads(self) -> bool:
        "Whether pictures come through the input pipeline; else they lie in memory as floats."
        return self.size == 32


CASES = {
    "resnet18": Case("ResNet-18, 224 px", "resnet18", 224, 16, 1, 1, 1000, 3.5),
    "resnet50": Case("ResNet-50, 224 px", "resnet50", 224, 16, 1, 1, 1000, 3.0),
    "cifar": Case("ResNet-20, 32 px, with input", "projection", 32, 128, 3, 4, 10, 3.0),
}


def in_memory(case, steps, tuned, device):
    "The same batch `steps` times, float32, in the memory order that the way would choose."
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(case.batch, 3, case.size, case.size, generator=generator).to(device)
    labels = torch.randint(case.classes, (case.batch,), generator=generator).to(device)
    if tuned:
        images = images.contiguous(memory_format=torch.channels_last)
    return [(images, labels)] * steps


def bytes_and_labels(case, steps):
    "Random pictures of a unit: uint8 (N, 3, 32, 32) and labels."
    generator, count = torch.Generator().manual_seed(0), steps * case.batch
    images = torch.randint(0, 256, (count, 3, case.size, case.size), generator=generator, dtype=torch.uint8)
    return images, torch.randint(case.classes, (count,), generator=generator)


class PilPictures(Dataset):
    "Pictures in memory as torchvision's CIFAR10 gives them: a PIL image, transformed at every access, and an int."

    def __init__(self, images, labels, transform):
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def torchvision_data(case, steps, tuned, device):
    "A DataLoader over v2 transforms (crop, flip, normalise), or a batch in memory."
    if not case.reads:
        return in_memory(case, steps, tuned, device)
    steps_ = [v2.RandomCrop(case.size, padding=4), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    steps_ += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET.mean, IMAGENET.std)]
    pictures = PilPictures(*bytes_and_labels(case, steps), v2.Compose(steps_))
    return DataLoader(pictures, case.batch, shuffle=True, pin_memory=device.type == "cuda")


def timm_data(case, steps, tuned, device):
    "timm's loader with its prefetcher, and its way to bytes (crop, flip), or a batch in memory."
    if not case.reads:
        return in_memory(case, steps, tuned, device)
    pictures, common = PilPictures(*bytes_and_labels(case, steps), None), {"num_workers": 0, "persistent_workers": False}
    loader = timm.data.create_loader(pictures, (3, 32, 32), case.batch, is_training=True, device=device, **common)
    pictures.transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), ToNumpy()])
    return loader


def our_data(case, steps, device):
    "Our loader over bytes that lie on the device, or a batch in memory."
    if not case.reads:
        return in_memory(case, steps, True, device)
    images, labels = (part.to(device) for part in bytes_and_labels(case, steps))
    pictures = Pictures(images, labels, IMAGENET, crop_flip(case.size))
    return Loader(pictures, case.batch, sampler=EpochSampler(len(labels), shuffle=True), collate_fn=first_of)


def peer_model(case, make, tuned, device):
    "The peer's own network where it has this one, else ours; channels last if tuned."
    model = build_model(case.model, case.classes) if case.reads else make(case.model)
    return model.to(device, memory_format=torch.channels_last if tuned else torch.preserve_format)


def amp(tuned, device):
    return torch.autocast(device.type, torch.bfloat16, enabled=tuned)


def ours(case, tuned, steps, device):
    "The one place that knows our training code: `Trainer.epoch` over one of our loaders."
    runtime = setup(0, str(device), "bfloat16")
    MEMORY.enter_context(keep_memory())  # as `fit` does; the tuned peers in this process have it too
    model = runtime.to(build_model(case.model, case.classes))
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer, loader = Trainer(model, runtime, optimizer, schedule), our_data(case, steps, device)
    return lambda: trainer.epoch(loader, "epoch")


def bare_loop(case, tuned, steps, device):
    "What nobody can leave out."
    model = build_model(case.model, case.classes).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=DECAY)
    loader = our_data(case, steps, device)

    def work():
        for images, labels in loader:
            with amp(True, device):
                loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return work


class Smoothed:
    "A meter with a window and a running total, as torchvision's reference scripts keep one for each number."

    def __init__(self, window=20):
        self.window, self.total, self.count = deque(maxlen=window), 0.0, 0

    def update(self, value, n=1):
        self.window.append(value)
        self.total, self.count = self.total + value * n, self.count + n

    def __str__(self):
        return f"{torch.tensor(self.window).median().item():.4f} ({self.total / self.count:.4f})"


def top_k(logits, labels, ks=(1, 5)):
    "Accuracy in per cent among the k largest logits, for each k."
    with torch.inference_mode():
        right = logits.topk(max(ks), 1).indices.t() == labels[None]
        return [right[:k].flatten().sum(dtype=torch.float32) * (100 / len(labels)) for k in ks]


def torchvision_loop(case, tuned, steps, device):
    "references/classification: SGD with momentum, loss and accuracies read every step, a line every ten."
    model = peer_model(case, torchvision.models.get_model, tuned, device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=DECAY)
    loader = torchvision_data(case, steps, tuned, device)
    order = torch.channels_last if tuned else torch.preserve_format

    def work():
        model.train()
        meters = {name: Smoothed() for name in ("loss", "lr", "acc1", "acc5", "img/s", "data", "iter")}
        end = time.time()
        for i, (images, labels) in enumerate(loader):
            meters["data"].update(time.time() - end)
            start = time.time()
            images, labels = images.to(device, memory_format=order), labels.to(device)
            with amp(tuned, device):
                output = model(images)
                loss = criterion(output, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            top1, top5 = top_k(output, labels)
            meters["loss"].update(loss.item())
            meters["lr"].update(optimizer.param_groups[0]["lr"])
            meters["acc1"].update(top1.item(), len(labels))
            meters["acc5"].update(top5.item(), len(labels))
            meters["img/s"].update(len(labels) / (time.time() - start))
            meters["iter"].update(time.time() - end)
            if i % 10 == 0:
                print(i, *(f"{name}: {meter}" for name, meter in meters.items()))
            end = time.time()

    return work


def timm_loop(case, tuned, steps, device):
    "train.py: create_optimizer_v2, a cosine scheduler stepped by updates, NativeScaler for float16 alone, AverageMeters."
    model = peer_model(case, lambda name: timm.create_model(name, num_classes=case.classes), tuned, device)
    optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=RATE, weight_decay=DECAY, momentum=0.9)
    scheduler, _ = timm.scheduler.create_scheduler_v2(optimizer, num_epochs=100, updates_per_epoch=steps)
    criterion, loader = nn.CrossEntropyLoss().to(device), timm_data(case, steps, tuned, device)
    updates = iter(range(10**9))

    def work():
        losses, seconds = timm.utils.AverageMeter(), timm.utils.AverageMeter()
        model.train()
        optimizer.zero_grad()
        start = time.time()
        for i, (images, labels) in enumerate(loader):
            images, labels = images.to(device), labels.to(device)
            if tuned:
                images = images.contiguous(memory_format=torch.channels_last)
            with amp(tuned, device):
                loss = criterion(model(images), labels)
            loss.backward()  # bfloat16 and float32 need no NativeScaler, and train.py makes none
            optimizer.step()
            optimizer.zero_grad()
            losses.update(loss.item(), len(labels))
            seconds.update(time.time() - start)
            if i % 50 == 0:
                rates = [group["lr"] for group in optimizer.param_groups]
                print(i, losses.val, losses.avg, len(labels) / seconds.val, sum(rates) / len(rates))
            scheduler.step_update(num_updates=next(updates), metric=losses.avg)
            start = time.time()

    return work


def lightning_loop(case, tuned, steps, device):
    "Trainer.fit; returns its own times, from the first step to the last."
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = peer_model(case, torchvision.models.get_model, tuned, device)

        def training_step(self, batch, index):
            images, labels = batch
            if tuned:
                images = images.contiguous(memory_format=torch.channels_last)
            loss = cross_entropy(self.model(images), labels)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), RATE, momentum=0.9, weight_decay=DECAY)

    class Clock(lightning.Callback):
        def on_train_epoch_start(self, trainer, module):
            self.start = now(device)

        def on_train_epoch_end(self, trainer, module):
            self.spent = now(device) - self.start

    module, loader = Module(), torchvision_data(case, steps, tuned, device)
    loader = loader if case.reads else DataLoader(loader, batch_size=None)  # fit takes a list for several loaders
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}

    def work():
        clock, precision = Clock(), "bf16-mixed" if tuned else "32-true"
        options = {"accelerator": device.type, "devices": 1, "max_epochs": 1, "precision": precision}
        lightning.Trainer(**options, **quiet, callbacks=[clock]).fit(module, loader)
        return clock.spent

    return work


DEFAULT = {"torchvision": torchvision_loop, "timm": timm_loop, "Lightning": lightning_loop}
WAYS = {("ours", True): ours, ("bare loop", True): bare_loop}
WAYS |= {(name, True): loop for name, loop in DEFAULT.items()} | {(name, False): loop for name, loop in DEFAULT.items()}


def now(device):
    "CPU seconds of this process, or the wall clock of a CUDA device that has nothing left to do."
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def serve(connection, case, keys, steps, device, core):
    "A process: build its ways, then run a unit of the one asked for and send its seconds; an error is sent as text."
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    warnings.simplefilter("ignore")  # Lightning's advice about workers and loggers
    torch.set_num_threads(1)
    try:
        ways = {}
        for key in keys:
            torch.manual_seed(0)
            ways[key] = WAYS[key](case, key[1], steps[key], device)
        while (key := connection.recv()) is not None:
            start = now(device)
            spent = ways[key]()
            connection.send(spent if isinstance(spent, float) else now(device) - start)
    except Exception:
        connection.send(traceback.format_exc())


def ask(connection, key):
    "One unit's seconds."
    connection.send(key)
    answer = connection.recv()
    if isinstance(answer, str):
        raise RuntimeError(f"{key[0]} failed:\n{answer}")
    return answer


def measure(case, keys, rounds, device, core):
    "Seconds a picture, a row a round and a column a way; the ways take turns, every other round backwards."
    spawn, connections, processes = multiprocessing.get_context("spawn"), {}, []
    more = 5 if device.type == "cuda" else 1
    steps = {key: more * (case.tuned_steps if key[1] else case.default_steps) for key in keys}
    for tuned in (True, False):
        connections[tuned], theirs = spawn.Pipe()
        own = [key for key in keys if key[1] == tuned]
        processes.append(spawn.Process(target=serve, args=(theirs, case, own, steps, device, core), daemon=True))
        processes[-1].start()
    for key in keys:
        ask(connections[key[1]], key)  # not counted: kernels are chosen, libraries load what they load once
    seconds = {key: [] for key in keys}
    for i in range(rounds):
        tuned, default = ([key for key in keys if key[1] == kind] for kind in (True, False))
        turns = [key for turn in range(TURNS) for key in (tuned if turn % 2 == 0 else tuned[::-1])] + default
        for key in turns if i % 2 == 0 else turns[::-1]:
            seconds[key].append(ask(connections[key[1]], key) / steps[key] / case.batch)
    for connection, process in zip(connections.values(), processes, strict=True):
        connection.send(None)
        process.join()
    return {key: np.array(values) for key, values in seconds.items()}


def interval(ratios):
    "Two of the sorted ratios between which the median lies with a probability of 95 % (order statistics)."
    rank = max(1, int(binom.ppf(0.025, len(ratios), 0.5)))
    return np.sort(ratios)[[rank - 1, -rank]]


def summary(case, seconds):
    "A row a way: pictures a second, and how many times as fast ours is, with its interval and goal."
    table, ours = [], seconds["ours", True]
    for (name, tuned), values in seconds.items():
        ratios = values / (ours if tuned else ours.reshape(-1, TURNS).mean(1))
        low, high = interval(ratios)
        row = {"case": case.title, "way": name, "setting": "bf16, channels last" if tuned else "default, fp32"}
        row |= {"images_per_second": 1 / np.median(values), "ours_is_times_as_fast": np.median(ratios), "low": low, "high": high}
        goal = 0.98 if tuned else case.goal
        table.append(row | ({} if name == "ours" else {"goal": goal, "kept": bool(np.median(ratios) >= goal)}))
    return pd.DataFrame(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way runs a unit")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--keep", action="store_true", help="write training.csv (training_cuda.csv)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="the folder that --keep writes into")
    options = parser.parse_args()
    runtime = choose_runtime(options.device)
    found = importlib.util.find_spec("lightning") is not None
    keys = [key for key in WAYS if found or key[0] != "Lightning"]
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") and runtime.device.type == "cpu" else None
    print("load before: " + " ".join(f"{load:.1f}" for load in psutil.getloadavg()) + ("" if found else "; Lightning: not installed"))
    start, tables = time.perf_counter(), []
    for name in options.cases:
        seconds = measure(CASES[name], keys, options.rounds, runtime.device, core)
        tables.append(summary(CASES[name], seconds))
        print(f"{name}: {time.perf_counter() - start:.0f} s, load {psutil.getloadavg()[0]:.1f}", flush=True)
    table, facts = pd.concat(tables), environment(runtime)
    print(f"\n{table.round(3).to_string(index=False)}\n\n{facts}")
    if options.keep:
        machine = {"system": facts["system"], "torch": facts["torch"], "rounds": options.rounds}
        machine |= {"hardware": facts.get("gpu", facts["cpu_capability"]), "load": round(psutil.getloadavg()[0], 1)}
        file = "training.csv" if runtime.device.type == "cpu" else "training_cuda.csv"
        write_names_csv(table.round(3).assign(**machine), options.out / file)


if __name__ == "__main__":
    main()
