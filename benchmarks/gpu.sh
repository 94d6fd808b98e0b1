#!/usr/bin/env bash
# Everything in this repository that needs a CUDA device, in one command: `benchmarks/gpu.sh --help`.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: benchmarks/gpu.sh [--minutes N] [--only STEPS] [--name NAME] [--python PATH] [--wheels DIR]

Runs on a machine with a CUDA device, in this order:

  tests     the tests marked cuda
  book      chapters 00 to 13 by papermill, on CUDA, with the cells flagged cuda
  training  benchmarks/training.py: images trained in a second, here and in the loops of others
  maps      benchmarks/cam.py: what class activation maps cost, here and with other libraries
  depth     ResNet-18, 34, 50 and 101 on 12,000 drawn images of 160 pixels (recipes/depth_full.yaml, larger), seeds 0, 1
            and 2, one training a step (depth_<network>_seed<n>), then chapter 10 on what is there (depth_chapter)

Tables and environment.json go to benchmarks/results/gpu_<NAME>/, with steps.csv, which says how each step went; logs,
executed notebooks and trained networks stay outside of version control, in executed/gpu_<NAME>/ and runs/gpu_<NAME>/.
A training that was cut off goes on where it stopped when the script is called again.

  --minutes N    end after N minutes at the latest (default 240); a step that does not fit is not begun, and named
  --only STEPS   some of the five, as in --only "tests maps"
  --name NAME    of the machine (default: its host name); letters, digits, '.', '_' and '-'
  --python PATH  a Python with the packages of `make setup` (default: .venv/bin/python)
  --wheels DIR   without a network: make .venv-gpu from PATH (default here: python3), whose own packages, such as a torch
                 for this card, are used where they fit, and install what is missing from the wheels in DIR. Collect them
                 on a machine with a network, of the same system and Python:
                   pip download -d DIR -c constraints.txt '.[bench]' 'setuptools>=77'

Exit code: 0 everything was run and passed; 1 a step failed; 2 the command was mistaken; 3 there is no CUDA device;
4 nothing failed, but steps did not fit into the time.
TEXT
}

mistaken() {
    printf 'gpu.sh: %s\n' "$*" >&2
    exit 2
}

no_device() {
    printf 'gpu.sh: no CUDA device: %s; nothing was run\n' "$*" >&2
    exit 3
}

minutes=240 only="" name="" python="" wheels=""
while (($# > 0)); do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --minutes | --only | --name | --python | --wheels)
            [[ -n ${2:-} ]] || mistaken "$1 needs a value; --help lists the options"
            declare "${1#--}=$2"
            shift 2
            ;;
        *) mistaken "unknown argument '$1'; --help lists the options" ;;
    esac
done

steps="tests book training maps depth"
[[ $minutes =~ ^[1-9][0-9]{0,4}$ ]] || mistaken "--minutes $minutes: expected a whole number of minutes, 1 to 99999"
for wanted in $only; do
    [[ " $steps " == *" $wanted "* ]] || mistaken "--only $wanted: expected some of: $steps"
done
only=${only:-$steps}
name=${name:-$(hostname -s)}
[[ $name =~ ^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$ ]] || mistaken "--name '$name': expected up to 64 letters, digits, '.', '_' and '-'"
if [[ -n $wheels ]]; then
    compgen -G "$wheels/*.whl" >/dev/null || mistaken "--wheels $wheels: expected a folder that holds wheels (*.whl)"
    wheels=$(cd "$wheels" && pwd)
fi
if [[ $python == */* ]]; then
    [[ -x $python ]] || mistaken "--python $python: there is no such program"
    python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
if [[ -z $python ]]; then
    python=$root/.venv/bin/python
    [[ -z $wheels ]] || python=python3
fi
command -v "$python" >/dev/null || mistaken "there is no Python at $python; call make setup first, or give --python or --wheels"

torch_sees_cuda() {
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1
}

if ! nvidia-smi -L >/dev/null 2>&1 && ! torch_sees_cuda; then
    no_device "neither nvidia-smi nor PyTorch sees one"
fi

deadline=$((SECONDS + 60 * minutes))
out=$root/benchmarks/results/gpu_$name
work=$root/executed/gpu_$name
runs=$root/runs/gpu_$name
mkdir -p "$out" "$work/logs" "$runs"

if [[ -n $wheels ]]; then
    echo "== installing from $wheels into .venv-gpu"
    "$python" -m venv --system-site-packages .venv-gpu
    python=$root/.venv-gpu/bin/python
    install=("$python" -m pip install --quiet --no-index --find-links "$wheels")
    if ! { "${install[@]}" 'setuptools>=77' && "${install[@]}" --no-build-isolation -e '.[dev]'; }; then
        printf 'gpu.sh: the wheels in %s do not suffice: the last lines of pip name what is missing\n' "$wheels" >&2
        exit 1
    fi
fi
torch_sees_cuda || no_device "nvidia-smi lists one, but the PyTorch of $python does not see it (a build without CUDA?)"

failed=() skipped=() reserve=0  # minutes that a step must leave for the one that needs its result
echo "step,status,minutes" >"$out/steps.csv"

# step NAME MINUTES COMMAND...: run a command that is worth beginning with so many minutes left; its log has its name
step() {
    local step=$1 needs=$2 left=$((deadline - SECONDS - 60 * reserve)) began=$SECONDS code=0 status=ok
    shift 2
    if ((left < 60 * needs)); then
        printf '== %s skipped: it needs about %d minutes, %d are left\n' "$step" "$needs" $((left > 0 ? left / 60 : 0))
        printf '%s,skipped,0\n' "$step" >>"$out/steps.csv"
        skipped+=("$step")
        return
    fi
    printf '== %s\n' "$step"
    timeout --kill-after=60 "$left" "$@" >"$work/logs/$step.txt" 2>&1 || code=$?
    case $code in
        0) ;;
        124 | 137)
            status="cut off"
            skipped+=("$step")
            ;;
        *)
            status=failed
            failed+=("$step")
            tail -n 15 "$work/logs/$step.txt" >&2
            ;;
    esac
    printf '%s,%s,%d\n' "$step" "$status" $(((SECONDS - began + 59) / 60)) >>"$out/steps.csv"
    printf '   %s; log: executed/gpu_%s/logs/%s.txt\n' "$status" "$name" "$step"
}

asked_for() {
    [[ " $only " == *" $1 "* ]]
}

went_well() {
    grep -q "^$1,ok," "$out/steps.csv"
}

# The name that chapter 10 gives to the run of a network and a seed; the recipe's own are ResNet-18 and 0.
run_name() {
    local suffix=""
    [[ $2 == 0 ]] || suffix=_seed$2
    [[ $1 == resnet18 ]] || suffix+=_$1
    printf 'depth_160%s' "$suffix"
}

depth_trainings() {
    local seed=$1 network run
    local -A needs=([resnet18]=4 [resnet34]=4 [resnet50]=5 [resnet101]=8)
    for network in resnet18 resnet34 resnet50 resnet101; do
        run=$(run_name "$network" "$seed")
        step "depth_${network}_seed$seed" "${needs[$network]}" "$python" -m resnet_tutorial train --recipe "$out/depth_160.yaml" \
            --resume --set "seed=$seed" --set "model=$network" --set "name=$run" --set "out_dir=$runs/$run"
    done
}

depth() {
    local seed network complete seeds=()
    reserve=6
    "$python" benchmarks/gpu_records.py recipe "$out"
    for seed in 0 1 2; do
        depth_trainings "$seed"
        complete=yes
        for network in resnet18 resnet34 resnet50 resnet101; do
            went_well "depth_${network}_seed$seed" || complete=""
        done
        [[ -z $complete ]] || seeds+=("$seed")
    done
    reserve=0
    if ((${#seeds[@]} == 0)); then
        printf '== depth_chapter skipped: no seed has all four networks\n'
        printf 'depth_chapter,skipped,0\n' >>"$out/steps.csv"
        skipped+=(depth_chapter)
        return
    fi
    {
        printf 'recipe: "%s"\n' "$out/depth_160.yaml"
        printf 'models: [resnet18, resnet34, resnet50, resnet101]\n'
        printf 'seeds: [%s]\n' "$(IFS=,; echo "${seeds[*]}")"
        printf 'cheat_recipe: ""\nkeep: "%s"\nout_dir: "%s"\n' "$out/depth" "$runs"
    } >"$work/depth.yaml"
    step depth_chapter 5 "$python" -m resnet_tutorial execute 10 --params "$work/depth.yaml" --budget $((60 * minutes)) \
        --out "$work/depth_$(date +%Y%m%d_%H%M%S)"
}

book() {
    local pages
    pages=$work/book_$(date +%Y%m%d_%H%M%S)
    step book 8 "$python" -m resnet_tutorial execute --flags cuda --out "$pages"
    if [[ -f $pages/summary.json ]]; then
        "$python" benchmarks/gpu_records.py book "$out" "$pages/summary.json"
    fi
}

"$python" benchmarks/gpu_records.py environment "$out"
if asked_for tests; then step tests 2 "$python" -m pytest -q -m cuda; fi
if asked_for book; then book; fi
if asked_for training; then step training 5 "$python" benchmarks/training.py --device cuda --keep --out "$out"; fi
if asked_for maps; then step maps 3 "$python" benchmarks/cam.py --device cuda --keep --out "$out"; fi
if asked_for depth; then depth; fi

printf 'results: %s\n' "${out#"$root"/}"
if ((${#failed[@]} > 0)); then
    printf 'failed: %s\n' "${failed[*]}"
fi
if ((${#skipped[@]} > 0)); then
    printf 'did not fit into %d minutes: %s\n' "$minutes" "${skipped[*]}"
fi
((${#failed[@]} == 0)) || exit 1
((${#skipped[@]} == 0)) || exit 4
