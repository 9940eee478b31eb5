#!/usr/bin/env bash
# Install everything that nl_plugins needs, in verified versions.
#
#     bash tools/install.sh [--stack openmmlab | onedl] [--with [cls] [pose]]
#
# The stack is OpenMMLab's releases (requirements/openmmlab.txt) or, in a
# separate environment, the forks of docs/forks.md (requirements/onedl.txt).
# cls adds MMPreTrain and pose adds MMPose; both need torchvision, and an
# installed one is kept.
#
# Installs into the active virtual or conda environment or, if there is none,
# into .venv (.venv-onedl) in the repository, which is created if need be. An
# installed torch of at least 2.1 is kept. A wheel of mmcv is used where pip
# finds one, otherwise mmcv is compiled with its ops for that torch, on a
# machine with an NVIDIA GPU with its CUDA ops.
#
# Environment variables:
#     PYTHON      the Python (3.10 to 3.13) that creates the environment
#     PIP_*       options of pip, such as PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL
#     CXX         the C++ compiler
#     MAX_JOBS    how many compilers run at once
#     FORCE_CUDA  1: build mmcv's CUDA ops on a machine without a GPU too
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

show_help "$0" "$@"
choose_stack "$@"
[[ " ${arguments[*]} " =~ ^\ (\ |--with(\ (cls|pose))+\ )$ ]] ||
    fail "tools/install.sh takes --stack and then --with cls pose, but got" \
        "'${arguments[*]}'"

# runs PYTHON MODULES: whether it is a Python of a supported version with them.
runs() {
    "$1" -c "import sys, $2
sys.exit(not (3, 10) <= sys.version_info < (3, 14))" 2>/dev/null
}

env=$(environment "$stack")
if [ ! -x "$env/bin/python" ]; then
    [[ $env == "$ROOT"/.venv* && ! -L $env/bin/python ]] ||
        fail "$env has no bin/python that runs: deactivate or remove that" \
            "environment, or install Python in it."
    for python in ${PYTHON:-python3.11 python3.12 python3.13 python3.10 python3}; do
        runs "$python" 'venv, ensurepip' || continue
        step "Python environment $env" "$python" -m venv "$env"
        break
    done
    [ -x "$env/bin/python" ] ||
        fail "Python 3.10 to 3.13 with its venv module is needed, but" \
            "${PYTHON:+PYTHON=}$python is" \
            "$("$python" --version 2>&1 | tail -n 1): install one (Debian," \
            "Ubuntu: apt-get install python3-venv python3-dev) or set PYTHON."
fi
runs "$env/bin/python" pip ||
    fail "$env has $("$env/bin/python" --version 2>&1), but Python 3.10 to" \
        "3.13 with pip is needed: use another environment."
cd "$ROOT"
exec "$env/bin/python" tools/install.py "$stack" "${arguments[@]:1}"
