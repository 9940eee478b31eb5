#!/usr/bin/env bash
# Train as a job of slurm:
#   bash tools/slurm_train.sh PARTITION JOB CONFIG [WORK_DIR]
#       [options of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the
# environment.
set -e

if [ $# -lt 3 ] || [ "$1" = --help ]; then
    [ "${1:-}" = --help ] || { exec >&2; status=2; }
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit "${status:-0}"
fi
here=$(dirname "$0")
gpus_per_node=${GPUS_PER_NODE:-8}
options=("${@:4}")
# As with MMDetection, a fourth word that is no option is the work directory.
case "${4:-}" in
    '' | -*) ;;
    *) options=(--work-dir "$4" "${@:5}") ;;
esac

# SRUN_ARGS holds several words.
# shellcheck disable=SC2086
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" \
exec srun \
    --partition="$1" \
    --job-name="$2" \
    --gres="gpu:$gpus_per_node" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$here/train.py" "$3" --launcher slurm "${options[@]}"
