#!/usr/bin/env bash
# From raw text to the large run, each job waiting for those before it:
#
#   slurm/pipeline.sh CORPORA TOKENIZER SEARCH_CONFIG TRAIN_CONFIG [sbatch option ...]
#
# CORPORA has a line for each token file: its prefix, then its inputs (no spaces within them). The
# two configurations read these prefixes; the large run trains on the mixture that the search finds.
# Every corpus is tokenized by an array of FASTMIX_TASKS tasks (default 4). Prints the jobs' ids.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n 2,8p "$0" >&2
    exit 2
fi
cd "$(dirname "$0")/.."
CORPORA=$1 TOKENIZER=$2 SEARCH=$3 TRAIN=$4
shift 4
TASKS=${FASTMIX_TASKS:-4}
FASTMIX_VENV=.venv
if [ -f "${FASTMIX_SITE:-slurm/site.sh}" ]; then
    # shellcheck source=slurm/site.example.sh
    . "${FASTMIX_SITE:-slurm/site.sh}"
fi
RUN_DIR=$("$FASTMIX_VENV/bin/python" -c \
    'import sys, yaml; print(yaml.safe_load(open(sys.argv[1]))["run_dir"])' "$SEARCH")

submit() {
    sbatch --parsable --kill-on-invalid-dep=yes "$@" | cut -d ';' -f 1
}
MERGES=
while read -r PREFIX INPUTS; do
    [ -n "$PREFIX" ] || continue
    # The inputs are several words.
    # shellcheck disable=SC2086
    DATA=$(set -f; submit "$@" --array="1-$TASKS" slurm/preprocess.sbatch "$PREFIX" "$TOKENIZER" $INPUTS)
    MERGE=$(submit --dependency="afterok:$DATA" "$@" slurm/merge.sbatch "$PREFIX" "$TASKS")
    echo "$PREFIX: preprocess $DATA -> merge $MERGE"
    MERGES=$MERGES:$MERGE
done <"$CORPORA"
PROXY=$(submit --dependency="afterok$MERGES" "$@" slurm/pretrain_proxy.sbatch "$SEARCH")
LARGE=$(submit --dependency="afterok:$PROXY" "$@" slurm/pretrain_large.sbatch "$TRAIN" \
    "mixture=$RUN_DIR/mixture.json")
echo "search $PROXY -> large run $LARGE"
