"""What the decoder of a residual U-Net costs: forward and backward beside the plain encoder, in the same minute.

    python benchmarks/unet.py [--rounds 15] [--batch 32] [--size 96] [--encoder resnet_small] [--precision auto] [--keep]

One thread; the networks run in turn, round after round, and the ratio is taken within each round, so that a busy machine
disturbs both alike. Printed: the median of the process-CPU seconds, and the median of the ratios. `--keep` puts the rows
into benchmarks/results/unet.csv, in place of those of the same networks at the same size, batch and precision."""

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import psutil
import torch
from filelock import FileLock

from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.models import count_parameters
from resnet_tutorial.engine.zoo import NETWORKS, build_model
from resnet_tutorial.engine.runtime import choose_runtime, environment

FAMILIES = {"resnet_small": "unet_small", "resnet18": "unet18"}  # encoder -> what the names of its U-Nets begin with


def step(model, x, runtime):
    "Process-CPU seconds of one forward and backward pass, as training does it."
    start = time.process_time()
    with runtime.autocast():
        logits = model(x)
    logits.float().square().mean().backward()
    return time.process_time() - start


def compare(encoder, size, batch, rounds, precision):
    "A row a network: parameters, map, seconds and ratio to the plain encoder."
    runtime = choose_runtime("cpu", precision)
    names = [encoder, *(name for name in NETWORKS if name.startswith(FAMILIES[encoder]))]
    models = {name: runtime.to(build_model(name, 2)).train() for name in names}
    x, seconds = runtime.to(torch.randn(batch, 3, size, size)), {name: [] for name in names}
    for i in range(rounds + 1):  # the first round warms up
        for name, model in models.items():
            spent = step(model, x, runtime)
            if i:
                seconds[name].append(spent)
    rows = []
    for name, model in models.items():
        ratios = [own / plain for own, plain in zip(seconds[name], seconds[encoder], strict=True)]
        with torch.no_grad():
            height, width = model.eval().forward_features(x[:1]).shape[-2:]
        rows.append({"network": name, "parameters": count_parameters(model), "map": f"{height} x {width}",
                     "seconds": round(statistics.median(seconds[name]), 3), "ratio": round(statistics.median(ratios), 2)})
    return pd.DataFrame(rows), runtime


def keep(table):
    "Add the rows to the kept ones; a row of the same case replaces the old one. One process at a time reads and writes."
    file = Path(__file__).parent / "results" / "unet.csv"
    with FileLock(file.with_name(".unet.csv.lock")):
        old = [pd.read_csv(file)] if file.is_file() else []
        kept = pd.concat([*old, table]).drop_duplicates(["network", "size", "batch", "precision"], keep="last")
        write_names_csv(kept, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=[name for name in FAMILIES if name in NETWORKS], default="resnet_small")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/unet.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table, runtime = compare(options.encoder, options.size, options.batch, options.rounds, options.precision)
    dtype = str(runtime.dtype).removeprefix("torch.")
    print(f"forward and backward, {options.batch} pictures of {options.size} px, {dtype}, one thread")
    print(table.to_string(index=False))
    if options.keep:
        facts = environment()
        machine = {key: facts[key] for key in ("system", "torch")} | {"cpu": facts["cpu_capability"], "load": round(psutil.getloadavg()[0], 1)}
        keep(table.assign(size=options.size, batch=options.batch, precision=dtype, rounds=options.rounds, **machine))


if __name__ == "__main__":
    main()
