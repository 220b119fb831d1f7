#!/usr/bin/env bash
# Five real VMs in two VLANs behind the eBPF switch: up, look, prove, capture one forbidden packet, down.
# However it ends, by itself, by Ctrl-C or by kill, the fabric is taken down and nothing is left.
set -euo pipefail
set -m # each command in a process group of its own: this script decides who gets a Ctrl-C, and in which order
cd "$(dirname "$0")/.."
. tools/lib.sh

readonly TOPOLOGY=topologies/three-tier.vnet.yaml
readonly FABRIC=three-tier
readonly DB_SSH=(10.10.20.11 22)
readonly CAPTURE=build/demo/denied.pcapng
readonly RUN_DIR=${VNET_RUN_DIR:-/run/vnet}
child="" capturing="" begun=""

main() {
    [ "$(id -u)" = 0 ] || die "the demo needs root: namespaces, TAP and eBPF do" "sudo make demo"
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
    trap 'exec >/dev/null 2>&1; interrupted 129' HUP # the terminal is gone: what is printed would fail
    trap clean_up EXIT
    begun=yes

    say "Five VMs, two VLANs, three policies: $TOPOLOGY"
    vnet up
    say "What runs"
    vnet ps
    say "Each claim of the topology, proved on the switch's rules and tried with packets from inside the VMs"
    vnet verify --probe
    say "app may reach db on port 5432 only: what becomes of its packet to port 22?"
    capture_a_forbidden_packet
    show_the_capture
    say "And why: which way such a packet takes through the switch, and what would have let it pass"
    vnet trace app db "${DB_SSH[1]}/tcp"
    say "All down"
    vnet down
    begun=""
    nothing_is_left
    say "Done in $SECONDS s"
}

# Prints the command as the user would type it, and runs it so that a signal reaches this script at once.
vnet() {
    printf '\n$ vnet %s\n' "$*" >&2
    bin/vnet -f "$TOPOLOGY" "$@" </dev/null &
    child=$!
    local status=0
    wait "$child" || status=$?
    child=""
    return "$status"
}

capture_a_forbidden_packet() {
    mkdir -p "$(dirname "$CAPTURE")"
    rm -f "$CAPTURE"
    printf '\n$ vnet capture app --filter "tcp port %s" --dropped -c 1 -w %s &\n' "${DB_SSH[1]}" "$CAPTURE" >&2
    bin/vnet -f "$TOPOLOGY" capture app --filter "tcp port ${DB_SSH[1]}" --dropped -c 1 --duration 30 \
        -w "$CAPTURE" </dev/null &
    capturing=$!
    wait_until_it_listens
    vnet exec app nc -w 2 "${DB_SSH[@]}" && die "app reached db's port ${DB_SSH[1]}: the policy is not in force"
    note "no answer, as it should be"
    wait "$capturing"
    capturing=""
}

wait_until_it_listens() {
    local turns=0
    until [ -s "$CAPTURE" ]; do # the header is there as soon as packets are recorded
        kill -0 "$capturing" 2>/dev/null || die "vnet capture has ended"
        ((++turns <= 100)) || die "vnet capture does not begin"
        sleep 0.1
    done
}

show_the_capture() {
    local fields=(-T fields -e frame.interface_name -e ip.src -e ip.dst -e tcp.dstport -e frame.comment)
    printf '\n$ tshark -r %s %s\n' "$CAPTURE" "${fields[*]}" >&2
    tshark -r "$CAPTURE" "${fields[@]}" 2>/dev/null | tee build/demo/denied.txt
    grep -q 'dropped: POLICY .*db-from-app.*three-tier.vnet.yaml:' build/demo/denied.txt ||
        die "the captured packet does not name the policy that dropped it"
}

nothing_is_left() {
    local left
    left=$(
        ip netns list 2>/dev/null | grep -w "${VNET_NETNS_PREFIX:-vnet-}$FABRIC" || true
        find "${VNET_BPF_DIR:-/sys/fs/bpf/vnet}/$FABRIC" "$RUN_DIR/fabrics/$FABRIC" -maxdepth 0 2>/dev/null || true
        pgrep -af "$RUN_DIR/fabrics/$FABRIC/" || true
    )
    [ -z "$left" ] || die "left over:" "$left"
    note "left over: no namespace, no interface, no pinned map, no process"
}

interrupted() { # EXIT-CODE
    trap '' INT TERM HUP
    printf '\n' >&2
    end_process "$child"
    exit "$1"
}

clean_up() {
    local status=$?
    trap '' INT TERM HUP
    end_process "$capturing"
    if [ -n "$begun" ]; then
        say "Cleaning up" || exec >/dev/null 2>&1 # the terminal is gone
        bin/vnet -f "$TOPOLOGY" down </dev/null || note "cleaning up failed; when the cause is mended: bin/vnet -f $TOPOLOGY down"
    fi
    exit "$status"
}

end_process() { # PID
    [ -n "$1" ] || return 0
    kill -INT "$1" 2>/dev/null || return 0
    wait "$1" 2>/dev/null || true
}

main
