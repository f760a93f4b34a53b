#!/usr/bin/env bash
# A cluster inside an allocation, and a command on it:
#   sbatch cluster/deploy/slurm/run.sh sweep --name tiles --data /shared/parts --trials 50
# Asked to end before its time is up, the command writes its checkpoints; go on with:
#   sbatch cluster/deploy/slurm/run.sh sweep --resume tiles
#SBATCH --job-name=nfbmr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --output=nfbmr-%j.log
set -euo pipefail

if [ $# -eq 0 ]; then
    echo 'error: no command; for example: sbatch cluster/deploy/slurm/run.sh sweep --data /shared/parts' >&2
    exit 2
fi

venv="${NFBMR_VENV:-$SLURM_SUBMIT_DIR/.venv}"
if [ ! -x "$venv/bin/nfbmr" ]; then
    echo "error: no nfbmr in $venv; set NFBMR_VENV to an environment that every node sees" >&2
    exit 2
fi
export PATH="$venv/bin:$PATH"

# The folder is on shared storage, and the token readable by its owner alone.
private="$SLURM_SUBMIT_DIR/.nfbmr/slurm-$SLURM_JOB_ID"
(
    umask 077
    mkdir -p "$private"
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$private/token"
)
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$private/token"
export RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${nodes[0]}"
address="$(srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" hostname --ip-address)"
address="${address%% *}"
port=$((20000 + SLURM_JOB_ID % 20000))
resources=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

steps=()
command=
# shellcheck disable=SC2329 # the trap calls it
finish() {
    for step in "${steps[@]}"; do
        kill -TERM "$step" 2>/dev/null || true
    done
    wait
    rm -rf "$private"
}
trap finish EXIT

# Nodes have to hear each other; the dashboard stays on loopback.
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
    ray start --head --block --node-ip-address="$address" --port="$port" \
    --dashboard-host=127.0.0.1 --temp-dir="/tmp/nfbmr-$SLURM_JOB_ID" "${resources[@]}" &
steps+=($!)
until ray health-check --address "$address:$port" 2>/dev/null; do
    kill -0 "${steps[0]}" || exit 1
    sleep 2
done

# The others join when they are ready; a sweep uses a node from the moment it is there.
others=$((SLURM_JOB_NUM_NODES - 1))
if [ "$others" -gt 0 ]; then
    srun --nodes="$others" --ntasks="$others" --overlap --exclude="$head" \
        ray start --block --address="$address:$port" "${resources[@]}" &
    steps+=($!)
fi

export RAY_ADDRESS="$address:$port"
nfbmr "$@" &
command=$!
trap 'kill -TERM "$command"' TERM INT
code=0
wait "$command" || code=$?
# A signal ends the waiting; the command is then still writing its checkpoints.
while kill -0 "$command" 2>/dev/null; do
    wait "$command" || code=$?
done
exit "$code"
