"""Run notebooks as Colab and Kaggle would: a kernel with the packages that Colab brings, opened alone in a folder.

Makes an environment (about 1 GB without torch, which is linked from the one that runs this script) with Colab's IPython,
ipykernel, ipywidgets, fastcore, numpy and pandas, and without pooch, which Colab lacks. Folders of their own stand for
/content and /kaggle/working, a copy of this checkout for the repository on GitHub. Every notebook is executed fresh, with
its first cell run twice, and again after a restart without a repository to clone from. Nothing that was installed may change.

    python benchmarks/hosted.py 00_tour 08_cam --environment /tmp/colab
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from resnet_tutorial.engine.files import write_text
from resnet_tutorial.engine.paths import find_root

COLAB = ["ipython==7.34.0", "ipykernel==6.17.1", "ipywidgets==7.7.1", "jupyter_client==6.1.12", "notebook==6.5.7", "fastcore==2.2.12",
         "numpy==2.1.3", "pandas==2.2.3", "setuptools<80"]
BESIDES = ["accelerate", "pillow", "scipy", "scikit-learn", "matplotlib", "seaborn", "safetensors", "pydantic", "pyyaml", "typer", "tqdm",
           "filelock", "psutil", "requests", "joblib", "packaging", "sympy", "networkx", "jinja2", "fsspec", "typing_extensions"]
LINKED = ("torch-", "torch", "torchvision", "torchgen", "functorch", "nvidia", "triton", "cuda")


def make_environment(folder: Path) -> Path:  # its Python
    "An environment with Colab's versions, made once."
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *COLAB, *BESIDES], check=True)
        ours = Path(sysconfig.get_path("purelib"))
        theirs = next(folder.rglob("site-packages"))
        for path in ours.iterdir():
            if path.name.startswith(LINKED) and not path.name.startswith("torchcam") and not (theirs / path.name).exists():
                (theirs / path.name).symlink_to(path)
        (folder / "ready").touch()
    return python


def make_origin(folder: Path) -> str:  # its address
    "A repository whose branch main holds the files of this checkout as they are now."
    here = find_root()
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=here, capture_output=True, encoding="utf-8", check=True)
    for name in listed.stdout.splitlines():
        if (here / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((here / name).read_bytes())
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-qm", "copy"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder.as_uri()


def write_kernel(folder: Path, python: Path, place: Path, address: str) -> None:
    "A kernel whose path begins with the folder it was opened in, and whose git finds our copy where it looks for GitHub."
    git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{address}.insteadOf",
           "GIT_CONFIG_VALUE_0": "https://github.com/resnet-tutorial/resnet_tutorial"}
    kernel = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "hosted", "language": "python",
              "env": {"PYTHONPATH": str(place), "MPLBACKEND": "module://matplotlib_inline.backend_inline", **git}}
    (folder / "kernels" / "hosted").mkdir(parents=True, exist_ok=True)
    write_text(folder / "kernels" / "hosted" / "kernel.json", json.dumps(kernel))


def packages(python: Path) -> set[str]:
    "What is installed, as pip lists it."
    done = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], capture_output=True, encoding="utf-8", check=True)
    return set(done.stdout.splitlines())


def execute(name: str, base: Path, place: Path, twice: bool) -> tuple[int, int]:  # figures, and those that are stored
    "Execute a notebook that was opened alone in a folder."
    notebook = nbformat.read(find_root() / "nbs" / f"{name}.ipynb", 4)
    stored = count_figures(notebook)
    (at,) = [i for i, cell in enumerate(notebook.cells) if "set_up_notebook" in cell.source and cell.cell_type == "code"][:1]
    for host in ("/content", "/kaggle/working"):
        notebook.cells[at].source = notebook.cells[at].source.replace(f'"{host}"', repr(f"{base}{host}"))
    if twice:
        notebook.cells.insert(at, nbformat.v4.new_code_cell(notebook.cells[at].source))
    NotebookClient(notebook, kernel_name="hosted", timeout=1800, resources={"metadata": {"path": str(place)}}).execute()
    return count_figures(notebook), stored


def count_figures(notebook) -> int:
    "How many images the outputs hold."
    return sum(any(mime.startswith("image/") for mime in output.get("data", {})) for cell in notebook.cells for output in cell.get("outputs", []))


def main() -> None:
    "Every notebook on both hosts, fresh and after a restart."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", default=["00_tour"])
    parser.add_argument("--environment", type=Path, help="where the environment is, or is made; none: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        python = make_environment(options.environment or base / "environment")
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "pooch"], check=True)  # an earlier run has installed it
        address, before = make_origin(base / "origin"), packages(python)
        os.environ["JUPYTER_PATH"] = str(base)
        for host in ("/content", "/kaggle/working"):  # Kaggle's image holds a /content as well
            place = Path(f"{base}{host}")
            place.mkdir(parents=True)
            for name in options.notebooks:
                for twice, origin in ((True, address), (False, "https://nowhere.invalid/")):
                    write_kernel(base, python, place, origin)
                    start = time.monotonic()
                    found, stored = execute(name, base, place, twice)
                    added, gone = packages(python) - before, before - packages(python)
                    print(f"{host} {name} {'fresh' if twice else 'restarted'}: {found} figures of {stored}, {time.monotonic() - start:.0f} s; "
                          f"installed {sorted(added)}, replaced {sorted(gone)}", flush=True)
                    if gone or found < stored:
                        raise SystemExit("packages were replaced, or figures are missing")


if __name__ == "__main__":
    main()
