#!/bin/bash
# A run over several nodes of a SLURM cluster: one scheduler, one Dask-CUDA worker process per GPU, and the run itself.
#   sbatch --nodes 2 --gpus-per-node 4 deploy/slurm.sh DATA CONFIG RUN CACHE
# All four are on a folder that every node sees under the same path. Without GPUs: sbatch --gpus-per-node 0, and one
# worker process per core takes their place. A job that was ended continues when the same line is given again.
#SBATCH --job-name=eravane
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem=200G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

if [ $# -ne 4 ]; then
    echo "usage: sbatch slurm.sh DATA CONFIG RUN CACHE" >&2
    exit 2
fi
data=$1 config=$2 run=$3 cache=$4
export OMP_NUM_THREADS=1
contact="$cache/scheduler-$SLURM_JOB_ID.json"
scratch="${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"
mkdir -p "$cache"
trap 'rm -f "$contact"; kill $(jobs -p) 2>/dev/null || true' EXIT
trap 'exit 143' TERM # sent two minutes before the time limit

dask scheduler --scheduler-file "$contact" --port 0 --no-dashboard &
for _ in $(seq 120); do
    [ -s "$contact" ] && break
    sleep 1
done
[ -s "$contact" ] || { echo "the Dask scheduler did not start within 120 s" >&2; exit 1; }

if [ "${SLURM_GPUS_ON_NODE:-0}" != 0 ]; then
    workers=(dask cuda worker --nthreads 1 --device-memory-limit 0)
else
    workers=(dask worker --nworkers "${SLURM_CPUS_PER_TASK:-1}" --nthreads 1 --memory-limit auto)
fi
srun "${workers[@]}" --scheduler-file "$contact" --local-directory "$scratch" --no-dashboard &

address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$contact")
resume=()
[ -e "$run/manifest.json" ] && resume=(--resume)
eravane run "$data" --config "$config" --out "$run" --cache "$cache" --scheduler "$address" "${resume[@]}" &
wait $!
