"""What class activation maps cost that ask the network again and again, here and with pytorch-grad-cam and torchcam.

    python benchmarks/cam_passes.py [--group NAME] [--rounds 1] [--size 64] [--keep]

One thread; the cases of a group run in turn, round after round, and each keeps its least process-CPU time. A case of
less than a second runs up to five times in a row. --keep replaces the rows of the groups and sizes that were measured."""

import argparse
import contextlib
import io
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import psutil
import pytorch_grad_cam
import torch
import torchcam.methods
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from resnet_tutorial.engine.name_tables import write_names_csv
from resnet_tutorial.engine.runtime import choose_runtime, environment
from resnet_tutorial.grad_cam import grad_cam

RESULTS = Path(__file__).parent / "results"
TABLES = ("cam_passes.csv", "cam_passes_cases.csv")


def forward(model, x):
    with torch.inference_mode():
        return model(x)


def pgc_passes(method, model, x, layer, batch_size=64):
    "A map of pytorch-grad-cam that needs a pass for each channel; its progress bar is not shown."
    with method(model, [model.get_submodule(layer)]) as extractor, contextlib.redirect_stderr(io.StringIO()):
        extractor.batch_size = batch_size
        return torch.from_numpy(extractor(x, [ClassifierOutputTarget(0)]))


def torchcam_score(model, x, layer, batch_size=64):
    with torchcam.methods.ScoreCAM(model, layer, batch_size=batch_size) as extractor, torch.no_grad():
        return extractor(0, model(x), normalized=False)


def measure(cases, rounds):
    "Least process-CPU seconds of each case; all cases in turn, round after round."
    least = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, work in cases.items():
            for _ in range(5):
                start = time.process_time()
                work()
                least[name] = min(least[name], time.process_time() - start)
                if least[name] > 1:
                    break
    return least


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="how often each case runs")
    parser.add_argument("--size", type=int, default=64, help="side of the image in pixels")
    parser.add_argument("--group", default="", help="only groups whose name contains this")
    parser.add_argument("--keep", action="store_true", help="write both tables to benchmarks/results/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    times = {}
    for name, cases in passes_groups(options.size).items():
        if options.group in name:
            times[name] = measure(cases, options.rounds)
            first = next(iter(times[name].values()))
            table = pd.DataFrame({"CPU ms": {k: 1000 * v for k, v in times[name].items()}})
            print(f"\n{name}\n{table.assign(ratio=table['CPU ms'] / first / 1000).round(2).to_string()}", flush=True)
    if not times:
        parser.error(f"no group's name contains {options.group!r}; they are: {', '.join(passes_groups(options.size))}")
    table = pd.DataFrame(passes_claims(times), columns=["claim", "found", "", "limit", "kept"])
    print(f"\n{table.round(3).to_string(index=False)}\nload {psutil.getloadavg()[0]:.1f}")
    if options.keep:
        facts = environment(choose_runtime("cpu"))
        facts = {"system": facts["system"], "torch": facts["torch"], "cpu": facts["cpu_capability"], "threads": 1}
        table = table.round(3).assign(**facts, size=options.size, rounds=options.rounds)
        rows = [(group, case, "CPU ms", 1000 * value, options.size) for group, cases in times.items() for case, value in cases.items()]
        cases = pd.DataFrame(rows, columns=["group", "case", "unit", "value", "size"]).round(1)
        for found, file, key in ((table, TABLES[0], "claim"), (cases, TABLES[1], "group")):
            write_names_csv(beside_kept(found, RESULTS / file, key), RESULTS / file)


if __name__ == "__main__":
    main()
