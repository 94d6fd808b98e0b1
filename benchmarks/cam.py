"""What class activation maps cost here and with captum, torchcam and pytorch-grad-cam.

    python benchmarks/cam.py [--rounds 5] [--size 224] [--skip-memory] [--keep]
    python benchmarks/cam.py --passes [--group NAME] [--rounds 1] [--size 64] [--keep]   methods that make hundreds of passes

One thread; the cases of a group run in turn, round after round, and each keeps its least process-CPU time, so that a
busy machine disturbs all of them alike. Memory is the growth of the resident set in a process of its own."""

import argparse
import contextlib
import io
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


def pgc_passes(method, model, x, layer, batch_size=64):
    "A map of pytorch-grad-cam that needs a pass for each channel; its progress bar is not shown."
    with method(model, [model.get_submodule(layer)]) as extractor, contextlib.redirect_stderr(io.StringIO()):
        extractor.batch_size = batch_size
        return torch.from_numpy(extractor(x, [ClassifierOutputTarget(0)]))


def torchcam_score(model, x, layer, batch_size=64):
    with torchcam.methods.ScoreCAM(model, layer, batch_size=batch_size) as extractor, torch.no_grad():
        return extractor(0, model(x), normalized=False)


def every_class(model, x):
    with torch.inference_mode():
        features = model.forward_features(x)
        return class_activation_map(features, model.fc.weight), model.fc(features.mean((2, 3)))


def measure(cases, rounds, warm=True):
    "Least process-CPU seconds of each case; all cases in turn, round after round."
    for work in cases.values() if warm else ():
        work()
    least = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, work in cases.items():
            for _ in range(1 if warm else 5):  # without a warm start, cases of less than a second run five times in a row
                start = time.process_time()
                work()
                least[name] = min(least[name], time.process_time() - start)
                if least[name] > 1:
                    break
    return least


def groups(size):
    "Group -> case -> work."
    model, batch = torchvision.models.resnet50().eval(), torch.randn(16, 3, size, size)
    own, one, blocks = build_model("resnet50", 1000).eval(), batch[:1], list(find_layers(model))
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


def passes_groups(size):
    """Methods that ask again, at a ResNet-50 whose batch norms have seen noise; one image, the same batch of 64 for all.

    bfloat16 has rows of its own; it is not among the claims."""
    model, x = torchvision.models.resnet50(), torch.randn(1, 3, size, size)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(8, 3, size, size))
        model.eval().fc.weight *= 1 if model(x)[0, 0] > 0 else -1  # pytorch-grad-cam divides by the score
    ablation, score = pytorch_grad_cam.AblationCAM, pytorch_grad_cam.ScoreCAM
    ours = {layer: lambda layer=layer, method="ablation_cam", **options: grad_cam(model, x, 0, layer, method, **options)
            for layer in ("layer3.5", "layer4.2")}
    return {
        "Ablation-CAM, last block": {
            "plain forward": lambda: forward(model, x),
            "ours": ours["layer4.2"],
            "pytorch-grad-cam": lambda: pgc_passes(ablation, model, x, "layer4.2"),
        },
        "Ablation-CAM, layer3": {
            "plain forward": lambda: forward(model, x),
            "ours": ours["layer3.5"],
            "ours, bfloat16": lambda: ours["layer3.5"](pass_dtype=torch.bfloat16),
            "pytorch-grad-cam": lambda: pgc_passes(ablation, model, x, "layer3.5"),
        },
        "Score-CAM, last block": {
            "plain forward": lambda: forward(model, x),
            "ours": lambda: ours["layer4.2"](method="score_cam"),
            "ours, bfloat16": lambda: ours["layer4.2"](method="score_cam", pass_dtype=torch.bfloat16),
            "pytorch-grad-cam": lambda: pgc_passes(score, model, x, "layer4.2"),
            "torchcam": lambda: torchcam_score(model, x, "layer4.2"),
        },
    }


def passes_claims(times):
    "Claim, found ratio, limit, kept?"
    limits = [("Ablation-CAM, last block", "pytorch-grad-cam", 500), ("Ablation-CAM, layer3", "pytorch-grad-cam", 4),
              ("Score-CAM, last block", "pytorch-grad-cam", 1.5), ("Score-CAM, last block", "torchcam", 1.5)]
    rows = [(f"{peer} / ours, {group}", times[group][peer] / times[group]["ours"], limit) for group, peer, limit in limits if group in times]
    return [(name, found, ">=", limit, found >= limit) for name, found, limit in rows]


def beside_kept(table, path, key):
    "A table together with the rows of the kept one that it does not replace: other groups, and other sizes."
    if not path.exists():
        return table
    kept = pd.read_csv(path).rename(columns={"Unnamed: 2": ""})
    same = kept[key].isin(table[key]) & kept["size"].isin(table["size"])
    return pd.concat([kept[~same], table])[list(table.columns)]


def peak_memory(case, size):
    "MB per picture by which the resident set grows at most, batch of 8; run in a fresh process."
    model, x = torchvision.models.resnet50().eval(), torch.randn(8, 3, size, size)
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
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far

    def field(name):
        return int(next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(name)).split()[1])

    before = field("VmRSS")
    work()
    return (field("VmHWM") - before) / 1024 / len(x)


MEMORY_CASES = ["plain forward", "ours, 16 blocks", "ours, last block", "torchcam, 16 blocks", "pytorch-grad-cam, 16 blocks",
                "pytorch-grad-cam, last block"]


def measured_memory(size):
    rows = {}
    # large blocks go back to the system as soon as they are free: the resident set is what is really held
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for case in MEMORY_CASES:
        command = [sys.executable, __file__, "--size", str(size), "--memory", case]
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
    parser.add_argument("--keep", action="store_true", help="write both tables to benchmarks/results/")
    parser.add_argument("--passes", action="store_true", help="the methods that make hundreds of passes, in place of the others")
    parser.add_argument("--group", default="", help="only groups whose name holds this; other rows of kept tables stay")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.group and not options.passes:
        parser.error("--group chooses among the groups of --passes")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.memory:
        print(peak_memory(options.memory, options.size))
        return
    times, tables = {}, ("cam_passes.csv", "cam_passes_cases.csv") if options.passes else ("cam.csv", "cam_cases.csv")
    chosen = (passes_groups if options.passes else groups)(options.size)
    for name, cases in {name: cases for name, cases in chosen.items() if options.group in name}.items():
        times[name] = measure(cases, options.rounds, warm=not options.passes)
        first = next(iter(times[name].values()))
        table = pd.DataFrame({"CPU ms": {k: 1000 * v for k, v in times[name].items()}})
        print(f"\n{name}\n{table.assign(ratio=table['CPU ms'] / first / 1000).round(2).to_string()}", flush=True)
    memory = {} if options.skip_memory or options.passes else measured_memory(options.size)
    if memory:
        print(f"\npeak memory, MB a picture\n{pd.Series(memory).round(1).to_string()}")
    table = pd.DataFrame(passes_claims(times) if options.passes else claims(times, memory), columns=["claim", "found", "", "limit", "kept"])
    print(f"\n{table.round(3).to_string(index=False)}\nload {psutil.getloadavg()[0]:.1f}")
    if options.keep:
        facts = environment(choose_runtime("cpu"))
        facts = {"system": facts["system"], "torch": facts["torch"], "cpu": facts["cpu_capability"], "threads": 1}
        facts |= {"size": options.size, "rounds": options.rounds} if options.passes else {}
        table = table.round(3).assign(**facts)
        write_names_csv(beside_kept(table, RESULTS / tables[0], "claim") if options.group else table, RESULTS / tables[0])
        rows = [(group, case, "CPU ms", 1000 * value) for group, cases in times.items() for case, value in cases.items()]
        rows += [("peak memory", case, "MB a picture", value) for case, value in memory.items()]
        cases = pd.DataFrame(rows, columns=["group", "case", "unit", "value"]).round(1)
        cases = cases.assign(size=options.size) if options.passes else cases
        write_names_csv(beside_kept(cases, RESULTS / tables[1], "group") if options.group else cases, RESULTS / tables[1])


if __name__ == "__main__":
    main()
