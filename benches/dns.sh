#!/usr/bin/env bash
# What a DNS answer costs: microseconds of CPU per query of the process that answers, beside NSD, Knot and a floor.
#
#   benches/dns.sh              needs dnsperf, and taskset (util-linux); nsd and knot (Debian's names) where wanted
#
# floor      the same loop around the same system calls, with each reply ready: what no server here can go below
# nsd, knot  the same records as a static zone; a column says - where they are not installed, or no zone answers alike
# lictor     nothing changes; then 1,000 registrations a second, each with a new port, on another service ("elsewhere")
#            or on the very service of 10,000 that is asked ("inside"); their own CPU, on a thread of theirs, is not counted
#
# Rows are named by instances, type, and the size that the client offers by EDNS: 3-A asks 1,000 services in turn.
# Each server has one thread or worker, on CORE; dnsperf has the other core. Every figure is the least of ROUNDS, so that
# what else the machine does is not counted; in brackets, its ratio to the floor of its row. Only loopback is used.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-3}        # of the whole table
SECONDS_EACH=${SECONDS_EACH:-2} # of one measurement, after half of it as warm-up
PORT=${PORT:-15300}        # and the next ten
CORE=${CORE:-1}            # for the server
ASKING_CORE=${ASKING_CORE:-0} # for dnsperf

for tool in dnsperf taskset awk; do
    command -v $tool >/dev/null || { echo "benches/dns.sh needs $tool" >&2; exit 1; }
done

work=$(mktemp -d)
server=
stop() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    server=
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

cargo build --release --quiet --bench dns
bench=$(cargo build --release --quiet --bench dns --message-format=json | sed -n 's|.*"executable":"\([^"]*/dns-[^"]*\)".*|\1|p')
"$bench" data "$work"

# A process and all that descend from it.
processes() {
    local child
    echo "$1"
    for child in $(cat "/proc/$1/task"/*/children 2>/dev/null); do
        processes "$child"
    done
}

# The threads of the server that runs, as /proc/PID/task/TID. Of lictor and the floor only those that answer DNS.
threads() {
    local process thread name
    for process in $(processes "$server"); do
        for thread in /proc/"$process"/task/*; do
            read -r name <"$thread/comm" || continue
            case $1:$name in
                nsd:* | knot:* | *:dns-*) echo "$thread" ;;
            esac
        done
    done
}

# Nanoseconds of CPU that they have had.
cpu() {
    local thread ns _ sum=0
    for thread in $(threads "$1"); do
        read -r ns _ <"$thread/schedstat" && sum=$((sum + ns))
    done
    echo $sum
}

ask() { # PORT CASE SECONDS
    taskset -c "$ASKING_CORE" dnsperf -s 127.0.0.1 -p "$1" -B -d "$work/$2.queries" -l "$3" 2>/dev/null
}

# Starts a server in the background and waits until it answers.
start() { # SERVER COMMAND...
    local name=$1 deadline=$((SECONDS + 30)) thread
    shift
    taskset -c "$ASKING_CORE" "$@" >"$work/log" 2>&1 &
    server=$!
    until ask "$PORT" 3-A 0.1 | grep -q 'completed: *[1-9]'; do
        if [ $SECONDS -ge $deadline ] || ! kill -0 $server 2>/dev/null; then
            echo "$name does not answer:" >&2
            cat "$work/log" >&2
            exit 1
        fi
    done
    for thread in $(threads "$name"); do
        taskset -cp "$CORE" "${thread##*/}" >/dev/null
    done
}

# Appends "CASE COLUMN MICROSECONDS" to the results.
measure() { # SERVER PORT CASE COLUMN
    local before after report
    ask "$2" "$3" "$(half)" >"$work/log"
    before=$(cpu "$1")
    report=$(ask "$2" "$3" "$SECONDS_EACH")
    after=$(cpu "$1")
    awk -v ns=$((after - before)) -v at="$3 $4" '
        /Queries completed/ { n = $3 }
        END { if (n < 1000) { print at ": only " n + 0 " replies" >"/dev/stderr"; exit 1 } print at, ns / n / 1000 }
    ' <<<"$report" >>"$work/results"
}
half() { awk -v seconds="$SECONDS_EACH" 'BEGIN { print seconds / 2 }'; }

cases() { awk -v wanted="$1" '$0 ~ wanted { print $1 }' "$work/cases"; }

floor() {
    local port=$PORT case
    start floor "$bench" floor "$PORT"
    for case in $(cases .); do
        measure floor "$port" "$case" floor
        port=$((port + 1))
    done
    stop
}

static() { # nsd|knot COMMAND...
    local name=$1 case
    start "$@"
    for case in $(cases 'zones$'); do
        measure "$name" "$PORT" "$case" "$name"
    done
    stop
}

lictor() { # none|elsewhere|inside WHICH_CASES
    local case
    start lictor "$bench" serve "$PORT" "$1"
    for case in $(cases "$2"); do
        measure lictor "$PORT" "$case" "$1"
    done
    stop
}

cat >"$work/nsd.conf" <<END
server:
    ip-address: 127.0.0.1@$PORT
    server-count: 1
    username: ""
    chroot: ""
    zonesdir: "$work"
    pidfile: "$work/nsd.pid"
    xfrdfile: "$work/xfrd.state"
    xfrdir: "$work"
    zonelistfile: "$work/zone.list"
    database: ""
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: consul
    zonefile: consul.zone
END
cat >"$work/knot.conf" <<END
server:
    rundir: "$work"
    listen: 127.0.0.1@$PORT
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "$work"
zone:
  - domain: consul
    storage: "$work"
    file: consul.zone
    zonefile-sync: -1
    journal-content: none
END

PATH=$PATH:/usr/sbin
for _ in $(seq "$ROUNDS"); do
    floor
    if command -v nsd >/dev/null; then static nsd nsd -d -c "$work/nsd.conf"; fi
    if command -v knotd >/dev/null; then static knot knotd -c "$work/knot.conf"; fi
    lictor none .
    lictor elsewhere .
    lictor inside '^10000'
done

awk '
    { at = $1 SUBSEP $2; if (!(at in least) || $3 < least[at]) least[at] = $3 }
    !($1 in seen) { seen[$1]; rows[++count] = $1 }
    function cell(row, column) {
        if (!((row, column) in least)) return "-"
        return sprintf("%.2f (%.2f)", least[row, column], least[row, column] / least[row, "floor"])
    }
    END {
        printf "%-16s%8s%14s%14s%14s%14s%14s\n", "us per query", "floor", "nsd", "knot", "lictor", "+ elsewhere", "+ inside"
        for (i = 1; i <= count; i++) {
            row = rows[i]
            printf "%-16s%8.2f%14s%14s%14s%14s%14s\n", row, least[row, "floor"], cell(row, "nsd"), cell(row, "knot"),
                cell(row, "none"), cell(row, "elsewhere"), cell(row, "inside")
        }
    }
' "$work/results"
