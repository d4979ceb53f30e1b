#!/bin/bash
# All units of a layer on every host of a TPU pod slice:
#
#     scripts/examples/sweep_tpu_pod.sh TPU ZONE MODEL LAYER FOLDER
#
# TPU is the name of the slice, on whose hosts rvis is installed; FOLDER is one that all of them
# see, such as a bucket that gcsfuse or a disk that NFS mounts. The same command goes on where a
# preempted slice stopped.
set -euo pipefail
[ $# -eq 5 ] || { echo "TPU ZONE MODEL LAYER FOLDER were expected, given: $*" >&2; exit 2; }
tpu=$1 zone=$2
shift 2

# JAX finds the other hosts in the slice's metadata.
program='
import sys, jax
jax.distributed.initialize()
import rvis
model, layer, folder = sys.argv[1:]
rvis.keep_programs()
rvis.sweep(rvis.load(model), layer, out=folder, progress=jax.process_index() == 0)
'
gcloud compute tpus tpu-vm ssh "$tpu" --zone "$zone" --worker=all \
    --command "python3 -c $(printf %q "$program") $(printf '%q ' "$@")"
