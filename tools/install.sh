#!/usr/bin/env bash
# Install everything that nl_plugins needs, in the versions of setup.cfg.
#
#     bash tools/install.sh [--stack openmmlab | onedl]
#
# The stack is OpenMMLab's releases or, in an environment of their own, the
# forks of docs/forks.md.
#
# Installs into the active virtual or conda environment or, if there is none,
# into .venv (.venv-onedl) in the repository, which is created if need be. A
# complete environment is left as it is, an incomplete one is completed. An
# installed torch is kept if it satisfies setup.cfg. mmcv is compiled with its
# ops for that torch, on a machine with an NVIDIA GPU with its CUDA ops.
#
# Environment variables:
#     PYTHON      the Python (3.10 to 3.12) that creates the environment
#     CXX         the C++ compiler
#     MAX_JOBS    how many compilers run at once
#     FORCE_CUDA  1: build mmcv's CUDA ops on a machine without a GPU too
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null
cd "$ROOT"

show_help "$0" "$@"
choose_stack "$@"
[ ${#arguments[@]} -eq 0 ] ||
    fail "tools/install.sh takes nothing but --stack, but got" \
        "'${arguments[*]}'"
env=$(environment "$stack")
python=$env/bin/python
log=$ROOT/work_dirs/install.log
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p work_dirs
: >"$log"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# --- Python and the environment ---------------------------------------------

# version_of PYTHON: print its major.minor, nothing if it does not run.
version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' \
        2>/dev/null || true
}

supported() {
    [[ $1 == 3.10 || $1 == 3.11 || $1 == 3.12 ]]
}

# Set chosen to the Python that creates the environment.
choose_python() {
    local candidate version bare=''
    for candidate in python3.11 python3.12 python3.10 python3; do
        candidate=${PYTHON:-$candidate}
        version=$(version_of "$candidate")
        if ! supported "$version"; then
            [ -z "${PYTHON:-}" ] ||
                fail "PYTHON=$PYTHON is ${version:-no Python that runs}, but" \
                    "Python 3.10 to 3.12 is needed: set it to one of these."
        elif "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            chosen=$candidate
            return
        else
            bare=$candidate
        fi
    done
    [ -z "$bare" ] ||
        fail "$bare cannot create virtual environments: install its venv" \
            "module (Debian, Ubuntu: apt-get install" \
            "python$(version_of "$bare")-venv)."
    fail "no Python 3.10 to 3.12 was found (python3 is" \
        "${version:-missing}): install one with its venv module and headers" \
        "(Debian, Ubuntu: apt-get install python3 python3-venv" \
        "python3-dev), or set PYTHON to one."
}

prepare_environment() {
    local version
    if [ ! -x "$python" ]; then
        [[ $env == "$ROOT/.venv" || $env == "$ROOT/.venv-onedl" ]] ||
            fail "the active environment $env has no bin/python:" \
                "deactivate it or install Python in it."
        [ ! -L "$python" ] ||
            fail "$env belongs to a Python that is gone: remove that folder."
        choose_python
        logged "$chosen" -m venv "$env" ||
            fail "$env could not be created; the log is $log"
    fi
    version=$(version_of "$python")
    supported "$version" ||
        fail "$env has Python ${version:-that does not run}, but Python" \
            "3.10 to 3.12 is needed: use another environment."
    "$python" -m pip --version >/dev/null 2>&1 ||
        logged "$python" -m ensurepip ||
        fail "$env has no pip, and it could not be added: install pip in it."
    "$python" -c 'import packaging' 2>/dev/null || install packaging
    printf '   Python %s in %s\n' "$version" "$env"
}

# --- running pip ------------------------------------------------------------

# show_progress OFFSET: until killed, print how long it takes and how far a
# compilation is that writes to the log from there on.
show_progress() {
    local start=$SECONDS seconds files next=30
    while kill -0 $$ 2>/dev/null; do
        sleep 1 >/dev/null 2>&1
        seconds=$((SECONDS - start))
        files=$(tail -c "+$1" "$log" |
            grep -oE '^ *\[[0-9]+/[0-9]+\]' | tail -n 1) || true
        files=${files:+, compiled ${files//[][ ]/} files}
        if [ -t 1 ]; then
            printf '\r   %d s%s ' "$seconds" "$files"
        elif [ "$seconds" -ge "$next" ]; then
            printf '   %d s%s\n' "$seconds" "$files"
            next=$((seconds + 30))
        fi
    done
}

# logged COMMAND...: run it with its output in the log, show that it is alive.
logged() {
    local watcher status=0
    printf '\n$ %s\n' "$*" >>"$log"
    show_progress "$(wc -c <"$log")" &
    watcher=$!
    "$@" >>"$log" 2>&1 || status=$?
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    if [ -t 1 ]; then
        printf '\r\033[K'
    fi
    return "$status"
}

# install ARGUMENTS...: pip install, with one clear line if it fails.
install() {
    local offset
    offset=$(wc -c <"$log")
    if logged "$python" -m pip install "$@"; then
        return
    fi
    tail -c "+$((offset + 1))" "$log" >"$work/failed.log"
    if grep -qE 'connection broken by|Max retries exceeded|timed out' \
        "$work/failed.log"; then
        fail "pip could not reach its package index: check the network," \
            "the proxy and pip's configuration; the log is $log"
    fi
    grep -E '(^|[^a-z])(error|ERROR): ' "$work/failed.log" | tail -n 5 >&2 ||
        true
    fail "pip could not install the above; the log is $log"
}

# pinned GROUP OPTIONS...: install a group of setup.cfg.
pinned() {
    local group=$1
    shift
    install -c "$work/constraints.txt" -r "$work/$group.txt" "$@"
}

# --- the parts --------------------------------------------------------------

# Set complete to yes or no.
check() {
    local status=0
    answer=$("$python" tools/environment.py --stack "$stack" check) ||
        status=$?
    case $status in
    0) complete=yes ;;
    3) complete=no ;;
    *) fail "$env could not be checked" ;;
    esac
    if [ "$complete" = yes ]; then
        printf '   %s\n' "$answer"
    else
        printf '   missing: %s\n' "${answer//$'\n'/, }"
    fi
}

# compiles COMMAND...: whether it makes a program of C++17.
compiles() {
    printf '#include <string>\nint main() { return std::string().size(); }\n' \
        >"$work/try.cpp"
    "$@" -std=c++17 "$work/try.cpp" -o "$work/try" >>"$log" 2>&1
}

# Before anything long is begun, see that mmcv can be compiled; export CXX.
check_compiler() {
    local candidate command include
    if [ -n "${CXX:-}" ]; then
        read -ra command <<<"$CXX"
        compiles "${command[@]}" ||
            fail "CXX=$CXX does not compile C++17: set it to a compiler" \
                "that does, or unset it."
    else
        for candidate in c++ g++ clang++; do
            if compiles "$candidate"; then
                export CXX=$candidate
                break
            fi
        done
        [ -n "${CXX:-}" ] ||
            fail "no C++ compiler was found, and mmcv's ops must be" \
                "compiled: install one (Debian, Ubuntu: apt-get install" \
                "g++; conda: conda install -c conda-forge cxx-compiler) or" \
                "set CXX to it."
    fi
    include=$("$python" -c \
        'import sysconfig; print(sysconfig.get_path("include"))')
    [ -e "$include/Python.h" ] ||
        fail "Python's headers are missing, there is no $include/Python.h:" \
            "install them (Debian, Ubuntu: apt-get install" \
            "python$(version_of "$python")-dev)."
    printf '   %s\n' "$CXX"
}

# mmcv-lite and its like fill mmcv's folder, without ops.
remove_conflicts() {
    local name
    for name in $("$python" tools/environment.py conflicts); do
        printf '   removing %s: mmcv takes its place\n' "$name"
        logged "$python" -m pip uninstall --yes "$name" ||
            fail "$name, which hides mmcv, could not be removed; the log is" \
                "$log"
    done
}

# The usual OpenCV needs libraries of the graphical desktop, which servers
# and containers lack; the headless one fills the same folder.
repair_cv2() {
    local error wanted
    error=$("$python" tools/environment.py cv2)
    [ -n "$error" ] || return 0
    wanted=$("$python" tools/environment.py opencv)
    if [[ $error == *'cannot open shared object file'* ]]; then
        wanted=${wanted/==/-headless==}
    fi
    printf '   %s: installing %s\n' "$error" "$wanted"
    install --force-reinstall --no-deps "$wanted"
    error=$("$python" tools/environment.py cv2)
    [ -z "$error" ] || fail "cv2 cannot be imported: $error"
}

# Compile mmcv unless pip has a wheel of it that fits the torch installed.
build_mmcv() {
    local error flags jobs name wheel
    error=$("$python" tools/environment.py toolkit)
    [ -z "$error" ] || fail "$error"
    remove_conflicts
    jobs=$("$python" -c 'import os, psutil
free = psutil.virtual_memory().available // 2**31  # 2 GiB for a compiler
print(max(1, min(free, len(os.sched_getaffinity(0)))))')
    export MAX_JOBS=${MAX_JOBS:-$jobs} MMCV_WITH_OPS=1
    # No debug symbols: they take time. CFLAGS replaces Python's own flags,
    # the optimization among them, so these are repeated.
    flags=$("$python" -c \
        'import sysconfig; print(sysconfig.get_config_var("CFLAGS") or "")')
    export CFLAGS="$flags ${CFLAGS:-} -g0"
    pinned mmcv --verbose --no-build-isolation
    error=$("$python" tools/environment.py ops)
    [ -n "$error" ] || return 0
    printf '   building anew: %s\n' "$error"
    name=$(<"$work/mmcv.txt")
    wheel=${name//-/_}
    logged "$python" -m pip cache remove "${wheel/==/-}-*" || true
    pinned mmcv --verbose --no-build-isolation --no-deps --force-reinstall \
        --no-binary "${name%%==*}"
    error=$("$python" tools/environment.py ops)
    [ -z "$error" ] ||
        fail "mmcv was built, but its ops do not load ($error); the log is" \
            "$log"
}

# --- all of it --------------------------------------------------------------

step "Python environment" prepare_environment
clone=$("$python" tools/environment.py clone)
[ -z "$clone" ] ||
    fail "$env runs nl_plugins of another clone, $clone: use a separate" \
        "environment for this one, or remove that one first:" \
        "$python -m pip uninstall nl_plugins"
others=$("$python" tools/environment.py --stack "$stack" others)
[ -z "$others" ] ||
    fail "$env holds ${others//$'\n'/, }, which is of another stack than" \
        "$stack: use an environment of its own."
step "Check" check
[ "$complete" = no ] || exit 0

"$python" tools/environment.py --stack "$stack" write "$work"
if grep -qE '^(torch|(onedl-)?mmcv)' <<<"$answer"; then
    step "C++ compiler" check_compiler
fi
step "PyTorch and build tools" pinned torch -r "$work/build.txt"
step "Toolboxes and development tools" pinned rest
step "OpenCV" repair_cv2
step "mmcv with its ops (compiling takes minutes)" build_mmcv
step "nl_plugins" install --no-build-isolation --no-deps --editable .
step "Check" check
[ "$complete" = yes ] || fail "$env is still incomplete; the log is $log"
