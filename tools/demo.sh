#!/usr/bin/env bash
# Install what is missing, then train, evaluate and compare small models.
#
#     bash tools/demo.sh [det | seg | video | all] [--seeds 0 1 2]
#
# Takes five to ten minutes a task on two CPU cores after the installation,
# twelve for video. Results, with the page comparison.html, go to
# work_dirs/demo (det), demo_seg and demo_video.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

show_help "$0" "$@"
bash "$ROOT/tools/install.sh"
cd "$ROOT"
# Small tensors: more threads would mostly wait for one another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$(environment)/bin/python" tools/demo.py "$@"
