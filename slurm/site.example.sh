# What differs from cluster to cluster: copy to slurm/site.sh and change it. Every script here reads
# slurm/site.sh if it is there.
#
# sbatch itself is told of account and partition by its own variables or on its command line:
#   sbatch --account=ACCOUNT --partition=PARTITION --gpus-per-node=8 slurm/pretrain_proxy.sbatch CONFIG
# shellcheck shell=bash

# Loads what the cluster needs, for example: module load cuda/12.8
load_modules() {
    :
}

# Where this repository's .venv was made with `make`.
export FASTMIX_VENV=${FASTMIX_VENV:-.venv}

# Where each start's log of each node goes; how often within an hour a job starts its processes again
# after one has died; and how often it is requeued at most.
export FASTMIX_LOGS=${FASTMIX_LOGS:-fastmix-logs}
export FASTMIX_RESTARTS_IN_JOB=${FASTMIX_RESTARTS_IN_JOB:-3}
export FASTMIX_MAX_RESTARTS=${FASTMIX_MAX_RESTARTS:-100}

# For jobs that were submitted with --no-kill (docs/reliability.md, "Lost nodes"): how many of their
# nodes are spare ones that take the place of lost ones, and with how many nodes a run goes on where
# none is spare (empty: with all).
export FASTMIX_SPARE_NODES=${FASTMIX_SPARE_NODES:-0}
export FASTMIX_MIN_NODES=${FASTMIX_MIN_NODES:-}

# Put before the command on every node, for example: (apptainer exec --nv image.sif)
# shellcheck disable=SC2034
CONTAINER=()
