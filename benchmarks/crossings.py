"""How often a recipe that enters `fit` crosses the border between two modules before the run is finished.

    python benchmarks/crossings.py [--list]

One tiny run (two phases, three epochs, a state in the middle of each) is trained under `sys.setprofile`. A call is looked at
where a function of `resnet_tutorial` calls, directly or through a library, a function of another of its modules, and where
what it is given holds the recipe: an argument or a name from an enclosing function that is the recipe, or an object or a
function with the recipe in it. Properties and generators count like functions. Counted are

crossings    such calls
climbs       those into a module that waits further up for the same call to return: a step that goes back to its caller
places       the same, but a function that calls another one over and over counts once
entries      of places: how many lead into `engine.fit`, where the recipe came from
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CellType, FrameType, FunctionType, MethodType

from resnet_tutorial.engine.fit import fit
from resnet_tutorial.engine.recipes import Recipe

PACKAGE = "resnet_tutorial."
DATA = {"n": 40, "size": 48, "split": [24, 8, 8]}
PHASES = [{"name": "probe", "epochs": 1, "train": ["fc.*"]}, {"name": "full", "epochs": 2}]


def is_ours(frame: FrameType) -> bool:
    "Whether a frame runs a function of the package; the recipe's own methods are at home wherever it is."
    return frame.f_globals.get("__name__", "").startswith(PACKAGE) and frame.f_globals["__name__"] != Recipe.__module__


def inside(value: object) -> list[object]:
    "What an object of the package, a bound method or a function with free variables holds."
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
    return list(vars(value).values()) if type(value).__module__.startswith(PACKAGE) and hasattr(value, "__dict__") else []


def holds_recipe(value: object, depth: int = 4) -> bool:
    "Whether a value is the recipe or leads to it."
    return isinstance(value, Recipe) or (depth > 0 and any(holds_recipe(held, depth - 1) for held in inside(value)))


def carries_recipe(frame: FrameType) -> bool:
    "Whether what a call is given holds a recipe."
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] + code.co_freevars
    return any(holds_recipe(frame.f_locals[name]) for name in names if name in frame.f_locals)


def stack_of(frame: FrameType | None) -> list[FrameType]:
    "The package's frames from this one outwards."
    found = []
    while frame is not None:
        found += [frame] if is_ours(frame) else []
        frame = frame.f_back
    return found


@contextmanager
def counted() -> Iterator[Counter]:  # (caller, callee, whether it is a climb) -> calls
    "Count the crossings of what runs inside."
    found = Counter()

    def look(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not is_ours(frame) or not (callers := stack_of(frame.f_back)):
            return
        modules = [caller.f_globals["__name__"] for caller in callers]
        here = frame.f_globals["__name__"]
        if here != modules[0] and carries_recipe(frame):
            names = [f"{f.f_globals['__name__'].removeprefix(PACKAGE)}.{f.f_code.co_qualname}" for f in (callers[0], frame)]
            found[(*names, here in modules)] += 1

    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(None)


def main() -> None:
    "Train and print."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="also print every place")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(name="tiny", data=DATA, image_size=32, batch_size=8, precision="float32", device="cpu", deterministic=True,
                        epochs=3, phases=PHASES, ema_decay=0.9, save_every_steps=2, out_dir=f"{folder}/tiny")
        with counted() as found:
            fit(recipe, say=lambda text: None)
    climbs = {key: calls for key, calls in found.items() if key[2]}
    if arguments.list:
        for (caller, callee, climb), calls in sorted(found.items()):
            print(f"{calls:5}  {caller} -> {callee}{'  CLIMB' if climb else ''}")
    print(f"crossings {found.total()}, climbs {sum(climbs.values())}")
    entries = sum(callee.startswith("engine.fit.") for _, callee, _ in found)
    print(f"places: crossings {len(found)}, climbs {len(climbs)}, entries into engine.fit {entries}")


if __name__ == "__main__":
    main()
