#!/bin/bash
# All units of a layer on several machines of a SLURM cluster, one process a GPU:
#
#     sbatch scripts/examples/sweep_slurm.sh MODEL LAYER FOLDER
#
# FOLDER must be one that all machines see. A job that was killed, or ran out of time, goes on where
# it stopped when it is sent again, on any number of machines.
#SBATCH --job-name=rvis
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --requeue
set -euo pipefail
[ $# -eq 3 ] || { echo "MODEL LAYER FOLDER were expected, given: $*" >&2; exit 2; }

# JAX finds the coordinator and the number of processes in SLURM's variables.
srun --kill-on-bad-exit=1 python - "$@" <<'PYTHON'
import sys

import jax

jax.distributed.initialize()
import rvis

model, layer, folder = sys.argv[1:]
rvis.keep_programs()
rvis.sweep(rvis.load(model), layer, out=folder, progress=jax.process_index() == 0)
PYTHON
