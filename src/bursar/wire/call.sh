#!/bin/sh
# The wrapper of bursar's tool calls (@KIND@). The officer writes it at its start; changes here are lost.
#
# One argument is a whole shell command, several are a command with its arguments. It runs in a cgroup of its own
# beside its agent's, so that it dies alone. No officer is needed for that: sh builtins, one mkdir, one rmdir.
# Whatever is beyond the agent's envelope, or needs other rights, is asked of the officer by `bursar call`.
# All names begin with _b_: a variable of the command's environment must not change here.

_b_unified=@UNIFIED@
_b_memory=@MEMORY@
_b_pids=@PIDS@
_b_envelopes=@ENVELOPES@

_b_shell=/bin/sh
case ${SHELL##*/} in
bash | zsh | ksh | dash | sh) [ -x "$SHELL" ] && _b_shell=$SHELL ;;
esac

_b_ask_officer() {
    [ $# -eq 1 ] && set -- "$_b_shell" -c "$1"
    exec @BURSAR@ call -- "$@"
}

# $_b_agent: whose processes we are. Its cgroup's parent is the directory of all agents, as far as this namespace sees it.
# $_b_own: our own cgroup below that directory.
_b_find_agent() {
    _b_agent= _b_path=
    while IFS= read -r _b_line; do
        case $_b_line in 0::*) _b_path=${_b_line#0::} ;; esac
    done </proc/self/cgroup
    _b_own=$_b_path
    while [ -n "${_b_path%/*}" ]; do
        _b_id=${_b_path##*/} _b_path=${_b_path%/*}
        case $_b_unified in
        *"$_b_path") [ -d "$_b_unified/$_b_id" ] && _b_agent=$_b_id _b_own=${_b_own#"$_b_path"} && return 0 ;;
        esac
    done
    return 1
}

# Join where we are already. After a pause the first join waits for an RCU grace period, and for two once the processes below have
# begun one; those that follow at once wait for none. So it is waited for here, where nothing has begun: 6 ms less.
_b_wake() {
    { echo 0 >"$_b_unified$_b_own/cgroup.procs"; } 2>/dev/null
}

# Whether the envelope has room for one call more: a cell that nobody lives in any more does not count.
_b_fits() {
    for _b_cell in "$_b_unified/$_b_agent"/call-*; do
        { read -r _b_word _b_state <"$_b_cell/cgroup.events"; } 2>/dev/null && [ "$_b_state" = 1 ] && _b_at_once=$((_b_at_once - 1))
    done
    [ "$_b_at_once" -gt 0 ]
}

# $_b_limit: the smaller of the envelope and what the agent has free. Above that the agent's limit would be hit first, and the agent
# itself could be the kernel's victim. File cache that nobody uses counts as free once it is much.
_b_size() {
    read -r _b_room <"$_b_memory/$_b_agent/@LIMIT@"
    read -r _b_used <"$_b_memory/$_b_agent/@USAGE@"
    _b_limit=$_b_most
    [ "$_b_room" = max ] && return
    if [ $((2 * _b_used)) -gt "$_b_room" ]; then
        while read -r _b_word _b_value; do
            [ "$_b_word" = @CACHE@ ] && _b_used=$((_b_used - _b_value)) && break
        done <"$_b_memory/$_b_agent/memory.stat"
    fi
    _b_room=$((_b_room - _b_used - 4194304))
    [ "$_b_room" -gt 1048576 ] || _b_room=1048576
    if [ "$_b_limit" = max ] || [ "$_b_limit" -gt "$_b_room" ]; then _b_limit=$_b_room; fi
}

# Every limit is written before anything runs in the cell. mkdir is the only process that this takes.
_b_make() {
    _b_call=$((1000000 + $$))
    while [ -e "$_b_unified/$_b_agent/call-$_b_call" ]; do _b_call=$((_b_call + 10000000)); done
    _b_cell=$_b_agent/call-$_b_call
    LC_ALL=C mkdir @CELLS@ && {
        @SHAPE@
    }
}

# The kernel takes a call before its agent. The v2 side is joined first: a half-joined process can then be killed as a group.
_b_join() {
    read -r _b_score </proc/self/oom_score_adj
    _b_score=$((_b_score + 20))
    [ "$_b_score" -gt 1000 ] && _b_score=1000
    { echo "$_b_score" >/proc/self/oom_score_adj; } 2>/dev/null
    @JOIN@
}

# The command's end is the end of the call.
_b_sweep() {
    _b_state=
    { read -r _b_word _b_state <"$_b_unified/$_b_cell/cgroup.events"; } 2>/dev/null
    [ "$_b_state" = 1 ] || return 0
    { echo 1 >"$_b_unified/$_b_cell/cgroup.kill"; } 2>/dev/null
    _b_tries=2000
    while [ "$_b_state" = 1 ] && [ "$_b_tries" -gt 0 ]; do
        _b_tries=$((_b_tries - 1))
        { read -r _b_word _b_state <"$_b_unified/$_b_cell/cgroup.events"; } 2>/dev/null || return 0
    done
}

# Whether the kernel killed here for lack of memory; then it says so in plain words.
_b_ran_out() {
    _b_kills=0 _b_peak=
    { while read -r _b_word _b_value; do
        [ "$_b_word" = oom_kill ] && _b_kills=$_b_value
    done <"$_b_memory/$_b_cell/@COUNTER@"; } 2>/dev/null
    [ "$_b_kills" -gt 0 ] || return 1
    { read -r _b_peak <"$_b_memory/$_b_cell/@PEAK@"; } 2>/dev/null
    if [ "$_b_status" -eq 137 ]; then _b_what="this tool call was killed"; else _b_what="a process of this tool call was killed"; fi
    echo "bursar: $_b_what: it needed more memory than the $((_b_limit / 1048576)) MiB it may use${_b_peak:+ (peak $((_b_peak / 1048576)) MiB)}; the agent goes on." \
        "Try fewer workers at once or smaller inputs, or give the agent more: bursar resize $_b_agent memory=AMOUNT" >&2
}

# Whether the officer has stopped this call; then it left a word why.
_b_was_stopped() {
    { read -r _b_word <"$_b_envelopes/$_b_agent:call-$_b_call"; } 2>/dev/null || return 1
    echo "bursar: $_b_word" >&2
}

_b_find_agent || _b_ask_officer "$@"
{ read -r _b_most _b_most_pids _b_at_once <"$_b_envelopes/$_b_agent"; } 2>/dev/null || _b_ask_officer "$@"
[ -w "$_b_memory/$_b_agent" ] && _b_fits || _b_ask_officer "$@"
_b_wake
_b_size
if ! _b_make 2>/dev/null; then
    rmdir @CELLS@ 2>/dev/null
    _b_ask_officer "$@"
fi

# Ctrl-C is the command's business; we stay to clean up. In the subshell the traps are gone.
trap : INT QUIT
(
    if ! _b_join; then
        echo "bursar: error: this tool call could not join its cgroup $_b_unified/$_b_cell" >&2
        exit 125
    fi
    [ $# -eq 1 ] && set -- "$_b_shell" -c "$1"
    exec @FOLLOW@"$@"
)
_b_status=$?
_b_sweep
# After an out-of-memory kill the cell stays, for the officer to record. Nobody waits for the rmdir.
[ "$_b_status" -eq 137 ] && _b_was_stopped
_b_ran_out || { rmdir @CELLS@ </dev/null >/dev/null 2>&1 & }
if [ "$_b_status" -eq 130 ]; then
    trap - INT
    kill -INT $$
fi
exit "$_b_status"
