"""What class activation maps cost here and with captum, torchcam and pytorch-grad-cam.

    python benchmarks/cam.py [--rounds 5] [--size 224] [--device cpu] [--skip-memory] [--keep] [--out benchmarks/results]

One thread; the cases of a group run in turn, round after round, and each keeps its least time, so that a busy machine
disturbs all of them alike: process-CPU time on a CPU, the wall clock, synchronised, on a CUDA device. Memory is the growth of
the resident set in a process of its own, on a CUDA device that of its allocated memory. The limits are claims about CPUs; on
CUDA, where a small pass costs its launches and not its arithmetic, they are shown for comparison."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import captum.attr
import pandas as pd
import psutil
import pytorch_grad_cam
import torch
import torchcam.methods
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from resnet_tutorial.cam import class_activation_map
from resnet_tutorial.feature_maps import find_layers
from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.grad_cam import grad_cam
from resnet_tutorial.engine.zoo import build_model
from resnet_tutorial.engine.runtime import choose_runtime, environment

RESULTS = Path(__file__).parent / "results"

METHODS = {
    "grad_cam": torchcam.methods.GradCAM,
    "grad_cam++": torchcam.methods.GradCAMpp,
    "xgrad_cam": torchcam.methods.XGradCAM,
    "layer_cam": torchcam.methods.LayerCAM,
}


def forward(model, x):
    with torch.inference_mode():
        return model(x)


def torchcam_maps(model, x, layers, method="grad_cam"):
    with METHODS[method](model, layers) as extractor:
        return extractor([0] * len(x), model(x), normalized=False)


def captum_maps(model, x, layers):
    modules = dict(model.named_modules())
    return [captum.attr.LayerGradCam(model, modules[name]).attribute(x, 0) for name in layers]


def pgc_maps(model, x, layers):
    modules, maps = dict(model.named_modules()), []
    for name in layers:
        with pytorch_grad_cam.GradCAM(model, [modules[name]]) as extractor:
            maps.append(extractor(x, [ClassifierOutputTarget(0)] * len(x)))
    return maps


def pgc_list(model, x, layers):
    modules = dict(model.named_modules())
    with pytorch_grad_cam.GradCAM(model, [modules[name] for name in layers]) as extractor:
        return extractor(x, [ClassifierOutputTarget(0)] * len(x))


def every_class(model, x):
    with torch.inference_mode():
        features = model.forward_features(x)
        return class_activation_map(features, model.fc.weight), model.fc(features.mean((2, 3)))


def now(device):
    "Process-CPU seconds, or on a CUDA device the wall clock once all its work is done."
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(cases, rounds, device):
    "Least seconds of each case; all cases in turn, round after round."
    for work in cases.values():
        work()
    least = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, work in cases.items():
            start = now(device)
            work()
            least[name] = min(least[name], now(device) - start)
    return least


def groups(size, device):
    "Group -> case -> work."
    model, batch = torchvision.models.resnet50().eval().to(device), torch.randn(16, 3, size, size, device=device)
    own, one, blocks = build_model("resnet50", 1000).eval().to(device), batch[:1], list(find_layers(model))
    last = blocks[-1:]
    return {
        "last block, one picture": {
            "plain forward": lambda: forward(model, one),
            "ours": lambda: grad_cam(model, one, 0, last),
            "captum": lambda: captum_maps(model, one, last),
            "torchcam": lambda: torchcam_maps(model, one, last),
            "pytorch-grad-cam": lambda: pgc_maps(model, one, last),
        },
        "16 blocks, one picture": {
            "plain forward": lambda: forward(model, one),
            "ours": lambda: grad_cam(model, one, 0, blocks),
            "torchcam, list": lambda: torchcam_maps(model, one, blocks),
            "captum, layer by layer": lambda: captum_maps(model, one, blocks),
            "pytorch-grad-cam, layer by layer": lambda: pgc_maps(model, one, blocks),
        },
        "four methods, 16 blocks": {
            "ours, one pass": lambda: grad_cam(model, one, 0, blocks, list(METHODS)),
            "torchcam, a list call a method": lambda: [torchcam_maps(model, one, blocks, m) for m in METHODS],
        },
        "CAM of 1,000 classes, batch of 16": {
            "plain forward": lambda: forward(own, batch),
            "ours": lambda: every_class(own, batch),
        },
    }


def peak_memory(case, size, device):
    "MB per picture by which the memory in use grows at most, batch of 8; run in a fresh process."
    model, x = torchvision.models.resnet50().eval().to(device), torch.randn(8, 3, size, size, device=device)
    blocks = list(find_layers(model))
    work = {
        "plain forward": lambda: forward(model, x),
        "ours, 16 blocks": lambda: grad_cam(model, x, 0, blocks),
        "ours, last block": lambda: grad_cam(model, x, 0, blocks[-1]),
        "torchcam, 16 blocks": lambda: torchcam_maps(model, x, blocks),
        "pytorch-grad-cam, 16 blocks": lambda: pgc_list(model, x, blocks),
        "pytorch-grad-cam, last block": lambda: pgc_list(model, x, blocks[-1:]),
    }[case]
    forward(model, x[:1, :, :32, :32])  # libraries load what they load once
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20 / len(x)
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far

    def field(name):
        return int(next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(name)).split()[1])

    before = field("VmRSS")
    work()
    return (field("VmHWM") - before) / 1024 / len(x)


MEMORY_CASES = ["plain forward", "ours, 16 blocks", "ours, last block", "torchcam, 16 blocks", "pytorch-grad-cam, 16 blocks",
                "pytorch-grad-cam, last block"]


def measured_memory(size, device):
    rows = {}
    # large blocks go back to the system as soon as they are free: the resident set is what is really held
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for case in MEMORY_CASES:
        command = [sys.executable, __file__, "--size", str(size), "--device", str(device), "--memory", case]
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=env, encoding="utf-8").stdout
        rows[case] = float(output.split()[-1])
    return rows


def claims(times, memory):
    "Claim, found ratio, limit, kept?"
    last, blocks = times["last block, one picture"], times["16 blocks, one picture"]
    four, classes = times["four methods, 16 blocks"], times["CAM of 1,000 classes, batch of 16"]
    rows = [
        ("last block / plain forward", last["ours"] / last["plain forward"], "<=", 1.05),
        ("pytorch-grad-cam / ours, last block", last["pytorch-grad-cam"] / last["ours"], ">=", 3),
        ("captum / ours, 16 blocks", blocks["captum, layer by layer"] / blocks["ours"], ">=", 10),
        ("pytorch-grad-cam / ours, 16 blocks", blocks["pytorch-grad-cam, layer by layer"] / blocks["ours"], ">=", 20),
        ("ours / torchcam's list, 16 blocks", blocks["ours"] / blocks["torchcam, list"], "<=", 1.05),
        ("torchcam / ours, four methods", four["torchcam, a list call a method"] / four["ours, one pass"], ">=", 3),
        ("CAM of 1,000 classes / plain forward", classes["ours"] / classes["plain forward"], "<=", 1.05),
    ]
    if memory:
        share = memory["ours, 16 blocks"] / memory["pytorch-grad-cam, 16 blocks"]
        rows.append(("peak memory, ours / pytorch-grad-cam, 16 blocks", share, "<=", 0.7))
    return [(name, found, sign, limit, found <= limit if sign == "<=" else found >= limit) for name, found, sign, limit in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each case runs")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in pixels")
    parser.add_argument("--skip-memory", action="store_true", help="leave out the memory table (Linux only)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--keep", action="store_true", help="write cam.csv and cam_cases.csv (cam_cuda.csv and cam_cases_cuda.csv)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder that --keep writes into")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    runtime = choose_runtime(options.device)
    device, unit = runtime.device, "CPU ms" if runtime.device.type == "cpu" else "ms"
    if options.memory:
        print(peak_memory(options.memory, options.size, device))
        return
    times = {}
    for name, cases in groups(options.size, device).items():
        times[name] = measure(cases, options.rounds, device)
        first = next(iter(times[name].values()))
        table = pd.DataFrame({unit: {k: 1000 * v for k, v in times[name].items()}})
        print(f"\n{name}\n{table.assign(ratio=table[unit] / first / 1000).round(2).to_string()}", flush=True)
    memory = {} if options.skip_memory else measured_memory(options.size, device)
    if memory:
        print(f"\npeak memory, MB a picture\n{pd.Series(memory).round(1).to_string()}")
    table = pd.DataFrame(claims(times, memory), columns=["claim", "found", "", "limit", "kept"])
    print(f"\n{table.round(3).to_string(index=False)}\nload {psutil.getloadavg()[0]:.1f}")
    if options.keep:
        known, ending = environment(runtime), "" if device.type == "cpu" else f"_{device.type}"
        facts = {"system": known["system"], "torch": known["torch"], "cpu": known["cpu_capability"], "threads": 1}
        facts |= {"gpu": known["gpu"]} if device.type == "cuda" else {}
        write_names_csv(table.round(3).assign(**facts), options.out / f"cam{ending}.csv")
        rows = [(group, case, unit, 1000 * value) for group, cases in times.items() for case, value in cases.items()]
        rows += [("peak memory", case, "MB a picture", value) for case, value in memory.items()]
        cases = pd.DataFrame(rows, columns=["group", "case", "unit", "value"]).round(1)
        write_names_csv(cases, options.out / f"cam_cases{ending}.csv")


if __name__ == "__main__":
    main()
