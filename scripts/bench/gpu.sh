#!/bin/bash
# What a GPU gives, in nine minutes at most: set-up, correctness beside the CPU, the benchmark's rows
# beside the peers that are installed, a sweep of 512 units at three widths and two precisions.
#
#     scripts/bench/gpu.sh [FOLDER]             results go to FOLDER, out/gpu by default
#     WHEELS=DIR scripts/bench/gpu.sh           installs from a folder of wheels first, offline
#     DRY=1 JAX_PLATFORMS=cpu scripts/bench/gpu.sh    tries every part on a CPU, with next to no work
#
# Says "no GPU" and ends with status 3 where there is none. DATA may name CIFAR-10, for attacks.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-out/gpu}
mkdir -p "$out"
dry=${DRY:+--dry}
began=$SECONDS failed=0

# part NAME LIMIT COMMAND...: runs it for so many seconds at most, and no longer than nine minutes in all.
part() {
    local name=$1 limit=$2 left=$((540 - (SECONDS - began)))
    shift 2
    if ((left < 10)); then
        echo "$name: left out, the time is over"
        return
    fi
    ((limit < left)) || limit=$left
    local started=$SECONDS
    if timeout "$limit" "$@" >"$out/$name.log" 2>&1; then
        echo "$name: done in $((SECONDS - started)) s"
    else
        echo "$name: status $? after $((SECONDS - started)) s, see $out/$name.log"
        tail -n 5 "$out/$name.log"
        failed=1
    fi
}

if [ -n "${WHEELS:-}" ]; then
    part install 120 python -m pip install --no-index --find-links "$WHEELS" "jax[cuda12]" -e ".[bench]"
fi
if [ -z "$dry" ] && ! python -c 'import jax; jax.devices("gpu")' >/dev/null 2>&1; then
    echo "no GPU"
    exit 3
fi
{ nvidia-smi || true; python -m pip list; } >"$out/machine.txt" 2>&1

part reference 90 env JAX_PLATFORMS=cpu python scripts/bench/gpu.py reference --out "$out" $dry
part correct 90 python scripts/bench/gpu.py correct --out "$out" $dry
part sweep 180 python scripts/bench/gpu.py sweep --out "$out" $dry
rows=(step attacks attribution --rounds 3 --json "$out/rows.json" ${DATA:+--data "$DATA"})
[ -z "$dry" ] || rows=(step-ratio --model mnist_cnn --size 28 --batch 2 --rounds 1)
part rows 240 python scripts/bench.py "${rows[@]}"
echo "$((SECONDS - began)) s in all; results are in $out"
exit $failed
