# Shell functions that tools/*.sh share; sourced, not run.

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
note() { printf '   %s\n' "$*" >&2; }

die() {
    printf 'vnet: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '      %s\n' "$line" >&2; done
    exit 1
}

# Without a terminal there are no escape sequences.
if [ ! -t 2 ]; then
    say() { printf '== %s\n' "$*" >&2; }
fi

# Runs a command that takes its time. Its output goes to the log; the terminal shows its latest line, or,
# without a terminal, a line every 15 seconds.
try_visibly() { # LABEL COMMAND...
    local label=$1 begin=$SECONDS
    shift
    mkdir -p "$(dirname "$LOG")"
    "$@" 2>&1 </dev/null | show_progress "$label" || return
    note "$label: done in $((SECONDS - begin)) s"
}

# The same; a failure shows the end of the output and ends the script.
run_visibly() { # LABEL COMMAND...
    local status=0
    mkdir -p "$(dirname "$LOG")"
    printf '\n$ %s\n' "${*:2}" >>"$LOG"
    try_visibly "$@" || status=$?
    if [ "$status" != 0 ]; then
        tac "$LOG" | awk 'NR > 30 || /^\$ / { exit } { print }' | tac >&2
        die "$1 failed (exit $status)" "the whole output is in $LOG"
    fi
}

show_progress() { # LABEL; reads the output
    local line shown=$SECONDS width
    width=$(($(tput cols 2>/dev/null || echo 80) - ${#1} - 8))
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$LOG"
        if [ -t 2 ]; then
            printf '\r\033[K   %s: %.*s' "$1" "$width" "$line" >&2
        elif ((SECONDS - shown >= 15)); then
            shown=$SECONDS
            note "$1: ${line:0:90}"
        fi
    done
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}
