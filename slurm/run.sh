# What pretrain_proxy.sbatch and pretrain_large.sbatch share; they set VERB and source this file.
# shellcheck shell=bash
#
# A process that dies is healed within the job: the launchers start all processes again from the last
# checkpoint, FASTMIX_RESTARTS_IN_JOB times an hour at most (fastmix --max-restarts). Exit code 75 of
# fastmix means "stopped as asked, with a checkpoint": the job is requeued and goes on. A lost node
# requeues it by Slurm itself. FASTMIX_MAX_RESTARTS ends an endless circle.
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: sbatch slurm/SCRIPT.sbatch CONFIG [key.path=value ...]" >&2
    exit 2
fi
# The batch script alone gets the signal before the time limit (--signal=B:...), perhaps before
# anything has started; srun hands it on.
ASKED=
STEP=
trap 'ASKED=1; [ -z "$STEP" ] || kill -USR1 "$STEP" 2>/dev/null || true' USR1
FASTMIX_VENV=.venv
CONTAINER=()
if [ -f "${FASTMIX_SITE:-slurm/site.sh}" ]; then
    # shellcheck source=slurm/site.example.sh
    . "${FASTMIX_SITE:-slurm/site.sh}"
    load_modules
fi
if [ ! -x "$FASTMIX_VENV/bin/python" ]; then
    echo "no Python in $FASTMIX_VENV: run make there, or set FASTMIX_VENV in slurm/site.sh" >&2
    exit 2
fi

RESTARTS=${SLURM_RESTART_COUNT:-0}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Jobs that share a node must not share a port, nor a job with its own earlier start.
RENDEZVOUS=$MASTER_ADDR:$((20000 + (SLURM_JOB_ID * 7 + RESTARTS) % 12000))
PROCESSES=${FASTMIX_PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
export RENDEZVOUS PROCESSES
LOGS=${FASTMIX_LOGS:-fastmix-logs}/$SLURM_JOB_ID
mkdir -p "$LOGS"
echo "job $SLURM_JOB_ID, start $((RESTARTS + 1)): fastmix ${VERB:?} $1 on $SLURM_JOB_NUM_NODES" \
    "node(s) x $PROCESSES process(es), rendezvous $RENDEZVOUS, logs $LOGS"
ARGUMENTS=("$@")
JOB=$SLURM_JOB_ID
# The examination of a job's machines is not a run.
[ "$VERB" = doctor ] || ARGUMENTS+=(--max-restarts "${FASTMIX_RESTARTS_IN_JOB:-3}")
# A sweep over seeds, sbatch --array=1-5: task N has seed N and the run folder's seed_N. The number
# of one of the tasks is also that of the whole array, which must not be requeued with it.
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    ARGUMENTS+=(--sweep-seed "$SLURM_ARRAY_TASK_ID")
    JOB=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
fi

requeue() {
    if [ "$RESTARTS" -ge "${FASTMIX_MAX_RESTARTS:-100}" ]; then
        echo "stopped, and not requeued again after $RESTARTS restarts" >&2
        exit 75
    fi
    echo "stopped as asked ($1); requeued to go on from the checkpoint"
    scontrol requeue "$JOB"
    # Slurm ends this script; leaving by itself could count as the job's end.
    sleep 60
}
[ -z "$ASKED" ] || requeue "before the start"

# The node's number is each node's own, so it is expanded there.
# shellcheck disable=SC2016
LAUNCH='exec "$0" -m fastmix_mega "$@" --nproc "$PROCESSES" --nnodes "$SLURM_JOB_NUM_NODES" \
    --node-rank "$SLURM_NODEID" --rendezvous "$RENDEZVOUS"'
# A step does not inherit the job's cores by itself: without the number its one task gets one core.
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}" \
    --output="$LOGS/start$((RESTARTS + 1))-node%n.log" \
    "${CONTAINER[@]}" bash -c "$LAUNCH" "$FASTMIX_VENV/bin/python" "$VERB" "${ARGUMENTS[@]}" &
STEP=$!
# Asked between the trap and here: srun would not know.
[ -z "$ASKED" ] || kill -USR1 "$STEP"
CODE=0
wait "$STEP" || CODE=$?
# A trapped signal ends `wait` early.
while kill -0 "$STEP" 2>/dev/null; do
    CODE=0
    wait "$STEP" || CODE=$?
done
cat "$LOGS/start$((RESTARTS + 1))-node0.log"
if [ "$CODE" = 75 ] || { [ "$CODE" != 0 ] && [ -n "$ASKED" ]; }; then
    requeue "exit code $CODE"
fi
exit "$CODE"
