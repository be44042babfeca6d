#!/bin/sh
# Stands in for systemctl where there is no systemd: records its calls ($FAKE_SYSTEMD/calls), and starts what the drop-ins say.
# A unit is known if it has a file UNIT.command; UNIT.after holds what it is ordered after; a drop-in UNIT.d/60-other.conf wins over ours.
set -u
root=$FAKE_SYSTEMD
echo "$*" >> "$root/calls"
verb=$1
shift
units=
for argument in "$@"; do case $argument in -*) ;; *) units="$units $argument" ;; esac; done
[ "$verb" = show ] || for unit in $units; do
    [ -e "$root/$unit.command" ] || { echo "No files found for $unit." >&2; exit 1; }
done

running() {  # prints the unit's process id if it runs
    [ -e "$root/$1.pid" ] || return 1
    read -r pid < "$root/$1.pid"
    read -r _ _ state _ < "/proc/$pid/stat" 2> /dev/null || return 1
    [ "$state" != Z ] && echo "$pid"
}

command_of() {
    found=$(cat "$root/$1".d/*.conf 2> /dev/null | sed -n 's/^ExecStart=//p' | tail -n 1)
    [ -n "$found" ] && echo "$found" || cat "$root/$1.command"
}

start() {
    running "$1" > /dev/null && return
    drop_in=$root/$1.d/50-tune-gpu.conf
    command=$(command_of "$1")
    (
        set -a
        for file in $(sed -n 's/^EnvironmentFile=-\{0,1\}//p' "$drop_in" 2> /dev/null); do [ ! -e "$file" ] || . "$file"; done
        eval "exec setsid $command" < /dev/null > "$root/$1.log" 2>&1
    ) &
    echo $! > "$root/$1.pid"
}

stop() {
    if pid=$(running "$1"); then
        kill -KILL "$pid"
        while running "$1" > /dev/null; do sleep 0.01; done
    fi
    rm -f "$root/$1.pid"
}

show_loaded() {  # as systemd has it in memory: "%%" is "%", quotes are gone
    words=$(eval "printf '%s ' $(command_of "$1" | sed 's/\$/\\$/g')" | sed 's/%%/%/g; s/ $//')
    echo "ExecStart={ path=${words%% *} ; argv[]=$words ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }"
    cat "$root/$1".d/*.conf 2> /dev/null | sed -n 's/^EnvironmentFile=-\(.*\)/EnvironmentFiles=\1 (ignore_errors=yes)/p; s/^EnvironmentFile=\(\/.*\)/EnvironmentFiles=\1 (ignore_errors=no)/p'
}

case $verb in
start) for unit in $units; do start "$unit"; done ;;
stop) for unit in $units; do stop "$unit"; done ;;
cat) for unit in $units; do echo "# $root/$unit"; cat "$root/$unit" "$root/$unit".d/*.conf 2> /dev/null; done ;;
is-active)
    for unit in $units; do
        if running "$unit" > /dev/null; then echo active; elif [ -e "$root/$unit.pid" ]; then echo failed; else echo inactive; fi
    done ;;
show)
    case $* in
    *InvocationID*) for unit in $units; do echo "$unit" | md5sum | cut -c 1-32; done ;;
    *MainPID*) for unit in $units; do running "$unit" || echo 0; done ;;
    *ExecStart,*) for unit in $units; do show_loaded "$unit"; done ;;
    *Id*) for unit in $units; do echo "Id=$(cat "$root/$unit.id" 2> /dev/null || echo "$unit")"; echo "After=$(cat "$root/$unit.after" 2> /dev/null)"; echo; done ;;
    *) printf 'Result=exit-code\nExecMainStatus=1\n' ;;
    esac ;;
esac
exit 0
