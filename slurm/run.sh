# What pretrain_proxy.sbatch and pretrain_large.sbatch share; they set VERB and source this file.
# shellcheck shell=bash
#
# A process that dies is healed within the job: the launchers start all processes again from the
# last checkpoint, FASTMIX_RESTARTS_IN_JOB times an hour at most (fastmix --max-restarts). A lost
# node requeues the job, or is replaced by a spare one, or left out (fastmix_mega.cli.allocation).
# Exit code 75 means "stopped, with a checkpoint": the job is requeued and goes on.
# FASTMIX_MAX_RESTARTS ends an endless circle.
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: sbatch slurm/SCRIPT.sbatch CONFIG [key.path=value ...]" >&2
    exit 2
fi
# The batch script alone gets the signal before the time limit (--signal=B:...), perhaps before
# anything has started; the supervisor and srun hand it on.
ASKED=
STEPS=
trap 'ASKED=1; [ -z "$STEPS" ] || kill -USR1 "$STEPS" 2>/dev/null || true' USR1
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
SPARE=${FASTMIX_SPARE_NODES:-0}
# The examination of a job's machines is not a run, and leaves none out.
[ "${VERB:?}" != doctor ] || SPARE=0 FASTMIX_MIN_NODES=
NODES=$((SLURM_JOB_NUM_NODES - SPARE))
LEAST=${FASTMIX_MIN_NODES:-$NODES}
if [ "$NODES" -lt 1 ]; then
    echo "FASTMIX_SPARE_NODES ($SPARE) leaves none of the job's $SLURM_JOB_NUM_NODES node(s)" >&2
    exit 2
fi
PROCESSES=${FASTMIX_PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
HEALING=
[ "$VERB" = doctor ] || HEALING="--max-restarts ${FASTMIX_RESTARTS_IN_JOB:-3}"
export PROCESSES HEALING
LOGS=${FASTMIX_LOGS:-fastmix-logs}/$SLURM_JOB_ID
mkdir -p "$LOGS"
echo "job $SLURM_JOB_ID, start $((RESTARTS + 1)): fastmix $VERB $1 on $NODES node(s)" \
    "x $PROCESSES process(es), $SPARE spare, at least $LEAST; logs $LOGS"
ARGUMENTS=("$@")
JOB=$SLURM_JOB_ID
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
    echo "stopped ($1); requeued to go on from the checkpoint"
    scontrol requeue "$JOB"
    # Slurm ends this script; leaving by itself could count as the job's end.
    sleep 60
}
[ -z "$ASKED" ] || requeue "before the start"

# What differs from step to step and from node to node is expanded there.
# shellcheck disable=SC2016
LAUNCH='if [ -n "${FASTMIX_CHECK_NODES:-}" ]; then
    exec "$0" -m fastmix_mega check --mode "$@" --nproc "$PROCESSES" --nnodes "$FASTMIX_CHECK_NODES"
fi
exec "$0" -m fastmix_mega "$@" $HEALING --nproc "$PROCESSES" --nnodes "$SLURM_STEP_NUM_NODES" \
    --node-rank "$SLURM_NODEID" --rendezvous "$RENDEZVOUS"'
"$FASTMIX_VENV/bin/python" -m fastmix_mega.cli.allocation --job "$JOB" \
    --nodes "$NODES" --min-nodes "$((LEAST < NODES ? LEAST : NODES))" \
    --cpus "${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}" \
    --logs "$LOGS/start$((RESTARTS + 1))" \
    -- "${CONTAINER[@]}" bash -c "$LAUNCH" "$FASTMIX_VENV/bin/python" "$VERB" "${ARGUMENTS[@]}" &
STEPS=$!
# Asked between the trap and here: nobody else would know.
[ -z "$ASKED" ] || kill -USR1 "$STEPS"
CODE=0
wait "$STEPS" || CODE=$?
# A trapped signal ends `wait` early.
while kill -0 "$STEPS" 2>/dev/null; do
    CODE=0
    wait "$STEPS" || CODE=$?
done
if [ "$CODE" = 75 ] || { [ "$CODE" != 0 ] && [ -n "$ASKED" ]; }; then
    requeue "exit code $CODE"
fi
exit "$CODE"
