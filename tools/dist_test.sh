#!/usr/bin/env bash
# Test on several GPUs:
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# On several machines run it on each of them, with NNODES, NODE_RANK (from 0),
# MASTER_ADDR (of the first one) and PORT in the environment.
set -e

if [ $# -lt 3 ] || [ "$1" = --help ]; then
    [ "${1:-}" = --help ] || { exec >&2; status=2; }
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit "${status:-0}"
fi
here=$(dirname "$0")

PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" \
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$3" \
    "$here/test.py" "$1" "$2" --launcher pytorch "${@:4}"
