#!/bin/sh
# Stands in for systemctl where there is no systemd: records its calls ($FAKE_SYSTEMD/calls), and starts what the drop-ins say.
# A unit is known if it has a file UNIT.command.
set -u
root=$FAKE_SYSTEMD
echo "$*" >> "$root/calls"
verb=$1
shift
units=
for argument in "$@"; do case $argument in -*) ;; *) units="$units $argument" ;; esac; done
for unit in $units; do
    [ -e "$root/$unit.command" ] || { echo "No files found for $unit." >&2; exit 1; }
done

running() {  # prints the unit's process id if it runs
    [ -e "$root/$1.pid" ] || return 1
    read -r pid < "$root/$1.pid"
    read -r _ _ state _ < "/proc/$pid/stat" 2> /dev/null || return 1
    [ "$state" != Z ] && echo "$pid"
}

start() {
    drop_in=$root/$1.d/50-tune-gpu.conf
    command=$(sed -n 's/^ExecStart=//p' "$drop_in" 2> /dev/null | tail -n 1)
    [ -n "$command" ] || command=$(cat "$root/$1.command")
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

case $verb in
start) for unit in $units; do start "$unit"; done ;;
stop) for unit in $units; do stop "$unit"; done ;;
is-active)
    for unit in $units; do
        if running "$unit" > /dev/null; then echo active; elif [ -e "$root/$unit.pid" ]; then echo failed; else echo inactive; fi
    done ;;
show)
    case $* in *MainPID*) for unit in $units; do running "$unit" || echo 0; done ;; *) printf 'Result=exit-code\nExecMainStatus=1\n' ;; esac ;;
esac
exit 0
