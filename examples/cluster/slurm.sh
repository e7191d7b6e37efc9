#!/bin/bash
# A search on Slurm: a Ray cluster for the time of the job, and `veldt search` on it.
#
#   sbatch examples/cluster/slurm.sh small_search --window 512
#
# The words after the script are those of `veldt search`. The run goes on with --resume whenever the
# job starts again: after a pre-emption, after a node's failure, and at the end of its time. It is
# kept in RUN_DIR (runs/CONFIG by default), which only the driver's node opens.
#
# To change: the lines below, and how veldt comes onto the PATH.
#SBATCH --job-name=veldt
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --output=veldt-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
# With GPUs: #SBATCH --gpus-per-node=4, and --pool.ray.num-gpus beside --window.

# source ~/veldt/env/bin/activate

set -u
config=$1
run_dir=${RUN_DIR:-runs/$(basename "$config" .yaml)}
cores=${SLURM_CPUS_PER_TASK:-2}
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(head -n 1 <<< "$nodes")
num_nodes=$(wc -l <<< "$nodes")
# This script runs on the first node. Another job there may have taken the usual port.
ip=${HEAD_IP:-$(hostname -I | cut -d ' ' -f 1)}
port=${HEAD_PORT:-$((20000 + SLURM_JOB_ID % 10000))}

# Whoever reaches Ray's ports and has the token can run any code as you: other users' jobs may.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
export RAY_TMPDIR=${TMPDIR:-/tmp}/veldt-$UID-$SLURM_JOB_ID
srun --nodes="$num_nodes" --ntasks="$num_nodes" mkdir -p -m 700 "$RAY_TMPDIR"

# Two cores of the head are the driver's and Ray's own.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --block --node-ip-address="$ip" --port="$port" --include-dashboard=false \
  --num-cpus=$((cores > 2 ? cores - 2 : 0)) &
cluster=$!
waited=0
until (: < "/dev/tcp/$ip/$port") 2> /dev/null; do
  if ((waited++ > 120)) || ! kill -0 "$cluster" 2> /dev/null; then
    echo "error: the Ray head on $head does not answer at $ip:$port" >&2
    exit 1
  fi
  sleep 1
done
if ((num_nodes > 1)); then
  srun --overlap --nodes=$((num_nodes - 1)) --ntasks=$((num_nodes - 1)) --exclude="$head" \
    ray start --block --address="$ip:$port" --num-cpus="$cores" &
  cluster="$cluster $!"
fi

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  veldt search "$@" --run-dir "$run_dir" --resume \
  --pool.backend ray --pool.ray.address "$ip:$port" &
driver=$!

# USR1 comes from Slurm before the time is up. TERM comes at a pre-emption and at `scancel`; then
# the steps may get it as well. The search stores all reported results and exits with 143.
time_is_up=
trap 'time_is_up=1; kill -TERM "$driver" 2> /dev/null' USR1
trap 'kill -TERM "$driver" 2> /dev/null' TERM
wait "$driver"
code=$?
while kill -0 "$driver" 2> /dev/null; do # A trap has ended `wait`, and not the search.
  wait "$driver"
  code=$?
done

# A job that was cancelled is not to come back.
preempted() {
  [[ $(scontrol show job "$SLURM_JOB_ID") =~ JobState=PREEMPTED|PreemptTime=[0-9] ]]
}
if ((code == 143)) && { [[ -n $time_is_up ]] || preempted; }; then
  echo "the search is to go on: the job is queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
# shellcheck disable=SC2086
kill $cluster 2> /dev/null
wait
exit "$code"
