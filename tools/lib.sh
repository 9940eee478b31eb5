# Shared by the shell scripts of this folder. To be sourced, not run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# A script that was started without stdin must not hand on a closed one.
{ true <&0; } 2>/dev/null || exec </dev/null

# fail MESSAGE: print one line that says what to do, and stop.
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# step WHAT COMMAND...: say what is done, do it, say how long it took.
step() {
    local what=$1 start=$SECONDS
    shift
    printf '== %s\n' "$what"
    "$@"
    printf '   took %d s\n' "$((SECONDS - start))"
}

# show_help SCRIPT ARGUMENTS...: print the comment at the top of a script and
# stop, if --help is among its arguments.
show_help() {
    local script=$1
    shift
    if [[ " $* " == *' --help '* || " $* " == *' -h '* ]]; then
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$script"
        exit 0
    fi
}

# choose_stack ARGUMENTS...: set stack, and arguments to what follows it.
choose_stack() {
    stack=openmmlab
    if [ "${1:-}" = --stack ]; then
        stack=${2:-}
        [[ $stack == openmmlab || $stack == onedl ]] ||
            fail "--stack must be openmmlab or onedl, but got '$stack'"
        shift 2
    fi
    arguments=("$@")
}

# environment [STACK]: print its folder: the active one, or .venv in the
# repository, .venv-onedl for the forks. conda's base is not for projects.
environment() {
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        printf '%s\n' "$VIRTUAL_ENV"
    elif [ -n "${CONDA_PREFIX:-}" ] &&
        [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then
        printf '%s\n' "$CONDA_PREFIX"
    elif [ "${1:-}" = onedl ]; then
        printf '%s\n' "$ROOT/.venv-onedl"
    else
        printf '%s\n' "$ROOT/.venv"
    fi
}
