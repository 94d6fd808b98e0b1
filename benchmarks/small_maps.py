"""The weight gradient of wide 3x3 convolutions on small maps: torch's own and ours; `--keep` writes small_maps.csv.

    OMP_NUM_THREADS=1 python benchmarks/small_maps.py [--rounds 9] [--keep]

Each case is the weight gradient of a convolution of 256 channels to 256 for a batch of 250 in bfloat16, as torch computes it
and as `fast_resnet.nine_products` does; the last one is a training step of `plain_fast` with either. Both ways take turns in
one process on one thread. Counted is process CPU time; kept is the median of the rounds, with the lowest and the highest
ratio of a round: with 9 rounds the true median lies between them with a probability of 99.6 %.
"""

import copy
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from torch import nn
from turns import finish, read_options, take_turns

from resnet_tutorial.engine.fast_resnet import WideConv2d, nine_products
from resnet_tutorial.engine.zoo import build_model
from resnet_tutorial.engine.runtime import keep_memory

BATCH = 250


def as_torch_does(model: nn.Module) -> nn.Module:
    "The same network with torch's own convolutions."
    for module in model.modules():
        if isinstance(module, WideConv2d):
            module.__class__ = nn.Conv2d
    return model


def gradient_ways(side: int) -> dict:
    "Both ways to a weight gradient, for maps of side x side."
    x, gradient = (torch.randn(BATCH, 256, side, side).bfloat16().to(memory_format=torch.channels_last) for _ in range(2))
    return {
        "torch": lambda: nn.grad.conv2d_weight(x, (256, 256, 3, 3), gradient, padding=1),
        "nine products": lambda: nine_products(x, gradient),
    }


def step(model: nn.Module, x: torch.Tensor):
    "A function that runs a network forward and backward."
    model = model.to(memory_format=torch.channels_last).train()

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        out.float().square().mean().backward()

    return run


def step_ways() -> dict:
    "Both ways to train plain_fast for a step."
    x = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    plain = build_model("plain_fast", 10)
    return {"torch": step(as_torch_does(copy.deepcopy(plain)), x), "nine products": step(plain, x)}


def measure(run) -> float:
    "Process CPU seconds of a step."
    start = time.process_time()
    run()
    return time.process_time() - start


def main():
    options, tables = read_options(__doc__, rounds=9), []
    with keep_memory():
        for side in (3, 7, 8, 15):
            tables.append(take_turns(f"weight gradient, map {side}x{side}", gradient_ways(side), measure, options.rounds, 2))
        tables.append(take_turns("a step of plain_fast, 32 px", step_ways(), measure, options.rounds, 2))
    found = pd.concat(tables).rename(columns={"ratio": "faster"})
    found.insert(2, "cpu_ms", 1e3 * found.pop("seconds"))
    finish(found.round({"cpu_ms": 1, "faster": 2, "low": 2, "high": 2}), "small_maps", options.keep)


if __name__ == "__main__":
    main()
