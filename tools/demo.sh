#!/usr/bin/env bash
# Install what is missing, look at a block on a photograph, then train, evaluate
# and compare small models.
#
#     bash tools/demo.sh [det | seg | video | all | cls | pose] [--seeds 0 1 2]
#
# Takes a minute, then five to ten minutes a task on two CPU cores after the
# installation, twelve for video. Results, with the page comparison.html, go to
# work_dirs/demo (det), demo_seg, demo_video, demo_cls and demo_pose. cls and
# pose also install MMPreTrain and MMPose, all is the first three.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

show_help "$0" "$@"
with=()
[[ ${1:-} == cls || ${1:-} == pose ]] && with=(--with "$1")
bash "$ROOT/tools/install.sh" "${with[@]}"
cd "$ROOT"
# Small tensors: more threads would mostly wait for one another.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$(environment)/bin/python" tools/demo.py "$@"
