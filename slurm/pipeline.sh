#!/usr/bin/env bash
# From raw text to the large run, each job waiting for the one before:
#
#   slurm/pipeline.sh CORPORA OUTPUT SEARCH_CONFIG TRAIN_CONFIG [sbatch option ...]
#
# CORPORA is a configuration of `fastmix data prepare`, OUTPUT its folder; the two configurations
# read what it makes. The large run trains on the mixture that the search finds. Prints the ids.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n 2,7p "$0" >&2
    exit 2
fi
cd "$(dirname "$0")/.."
CORPORA=$1 OUTPUT=$2 SEARCH=$3 TRAIN=$4
shift 4
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
DATA=$(submit "$@" slurm/preprocess.sbatch "$CORPORA" "$OUTPUT")
PROXY=$(submit --dependency="afterok:$DATA" "$@" slurm/pretrain_proxy.sbatch "$SEARCH")
LARGE=$(submit --dependency="afterok:$PROXY" "$@" slurm/pretrain_large.sbatch "$TRAIN" \
    "mixture=$RUN_DIR/mixture.json")
echo "preprocess $DATA -> search $PROXY -> large run $LARGE"
