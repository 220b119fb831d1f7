"""Each line of the doctor's table: of what is well nothing is said, of what is ill a sentence and a cure."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from vnet.fabric.cable import LinkState
from vnet.fabric.declared import declare
from vnet.fabric.doctor import FABRIC, HOST, TAP, Level, diagnose, is_broken
from vnet.fabric.numbers import DaemonNumbers, FabricNumbers, Numbers, VmNumbers
from vnet.fabric.store import Source
from vnet.fabric.strain import Lack, Strain
from vnet.fabric.symptoms import (
    DaemonSeen,
    FabricSeen,
    HostSeen,
    Interface,
    Leftovers,
    LocationSeen,
    Process,
    Seen,
    ServiceSeen,
    SwitchSeen,
)

TEXT = """\
name: lab
networks: {lan: {vlan: 10, dns: true, subnets: {cidr: 10.0.0.0/24, dhcp: true}}}
routers: {gw: {networks: [lan], uplink: host}}
uplinks: {wire: {interface: eth1, networks: [lan]}}
vms: {a: {networks: [lan]}, b: {networks: [lan]}}
policies: [{name: ping, applied_to: any, ingress: [{from: any, ports: [icmp]}]}]
"""
WANTED = declare(Source("lab.vnet.yaml", TEXT), {}, datetime(2026, 1, 1, tzinfo=UTC)).state()
WELL = Interface(TAP, up=True, carrier=True, program=True)
HEALTHY = FabricSeen(
    "lab",
    "my lab.vnet.yaml",
    3,
    3,
    "vnet-lab",
    "/sys/fs/bpf/vnet/lab",
    "/run/vnet/fabrics/lab/switch.sock",
    WANTED,
    namespace=True,
    interfaces={each.port.ifname: WELL for each in WANTED.attached},
    switch=SwitchSeen(
        ports={each.port.number: each.port.ifname for each in WANTED.attached}, flows=WANTED.flows
    ),
    agent=True,
    services=(ServiceSeen("lan", namespace=True, veth=True, pid=4711),),
    running=frozenset({"a", "b"}),
    gateways=WANTED.gateways,
    links={"wire": LinkState.UP},
)
HOST_WELL = HostSeen("/var/lib/vnet", 8 << 30, 80 << 30, "kvm", "KVM works", 2e9, 1.9e9, 2, 16 << 30)
COUNTED = FabricNumbers("lab", 3, 3, (VmNumbers("a", "ready", 1, 0), VmNumbers("b", "ready", 1, 0)))
NUMBERS = Numbers(0, 0.0, DaemonNumbers("1", 99), (COUNTED,))
DAEMON = DaemonSeen("/run/vnet/vnetd.sock", "1", 99, True, "", "1", NUMBERS)
SEEN = Seen(HOST_WELL, DAEMON, (HEALTHY,))


def interface(**change: bool) -> FabricSeen:
    return replace(HEALTHY, interfaces={**HEALTHY.interfaces, "a.eth0": replace(WELL, **change)})


def told(seen: Seen) -> dict[str, str]:
    """Check and subject of all that is wrong, with the command."""
    found = [each for each in diagnose(seen) if each.level is not Level.OK]
    return {f"{each.check} {each.subject}": each.mend for each in found}


def test_of_what_is_well_nothing_is_said_but_that_it_was_looked_at() -> None:
    found = diagnose(SEEN)
    assert {each.level for each in found} == {Level.OK}
    assert [each.check for each in found] == [each.name for each in (*HOST, *FABRIC)]
    assert not is_broken(found)


UP = "vnet up -f 'my lab.vnet.yaml'"
SERVICE = HEALTHY.services[0]
SWITCH = HEALTHY.switch
assert SWITCH is not None
OTHERS = {name: each for name, each in HEALTHY.interfaces.items() if name != "a.eth0"}
SICK: dict[str, tuple[FabricSeen, str]] = {
    "topology lab": (replace(HEALTHY, wanted=None, unreadable="no"), UP),
    "generation lab": (replace(HEALTHY, enforced=2), UP),
    "namespace vnet-lab": (replace(HEALTHY, namespace=False, interfaces={}), UP),
    "switch /sys/fs/bpf/vnet/lab": (replace(HEALTHY, switch=None), UP),
    "session /run/vnet/fabrics/lab/switch.sock": (
        replace(HEALTHY, agent=False),
        "vnet serve --stop; vnet ps",
    ),
    "port a.eth0": (replace(HEALTHY, interfaces=OTHERS), UP),
    "attached a.eth0": (replace(HEALTHY, switch=replace(SWITCH, ports={**SWITCH.ports, 1: ""})), UP),
    "program a.eth0": (interface(program=False), UP),
    "link a.eth0": (interface(carrier=False), "vnet stop -n lab a --wait 1; vnet start -n lab a"),
    "flows lab": (replace(HEALTHY, switch=replace(SWITCH, flows=frozenset())), UP),
    "foreign-flows lab": (
        replace(HEALTHY, switch=replace(SWITCH, foreign={0x11: 2})),
        "ovs-ofctl -O OpenFlow13 del-flows unix:/run/vnet/fabrics/lab/switch.sock cookie=0x11/-1",
    ),
    "service lan": (replace(HEALTHY, services=(replace(SERVICE, veth=False),)), UP),
    "dnsmasq lan": (replace(HEALTHY, services=(replace(SERVICE, pid=0),)), UP),
    "leases lan": (replace(HEALTHY, services=(replace(SERVICE, leases="/l"),)), "rm -r /l; kill 4711"),
    "left-service old": (replace(HEALTHY, services=(SERVICE, ServiceSeen("old"))), UP),
    "gateway gw": (replace(HEALTHY, gateways=frozenset()), UP),
    "uplink wire": (replace(HEALTHY, links={}), UP),
    "cable wire": (
        replace(HEALTHY, links={"wire": LinkState.DOWN}),
        "ip netns exec vnet-lab ip link show =wire",
    ),
    "guest a": (replace(HEALTHY, running=frozenset({"b"})), "vnet start -n lab a"),
}


@pytest.mark.parametrize("name", SICK)
def test_what_is_wrong_with_a_fabric_is_told_once_with_the_command_that_mends_it(name: str) -> None:
    fabric, mend = SICK[name]
    assert told(replace(SEEN, fabrics=(fabric,))) == {name: mend}


def test_a_switch_that_cannot_be_read_is_not_compared() -> None:
    for switch in (SwitchSeen(unreadable="spoiled"), SwitchSeen(is_other=True)):
        found = told(replace(SEEN, fabrics=(replace(HEALTHY, switch=switch),)))
        assert "flows lab" not in found
        assert "switch /sys/fs/bpf/vnet/lab" in found


def test_an_interface_that_is_gone_from_the_host_is_told_of() -> None:
    found = told(replace(SEEN, fabrics=(replace(HEALTHY, links={"wire": LinkState.MISSING}),)))
    assert found == {"uplink wire": "ip link show eth1"}


def test_a_switched_off_interface_is_switched_on() -> None:
    assert told(replace(SEEN, fabrics=(interface(up=False),))) == {
        "link a.eth0": "ip -n vnet-lab link set a.eth0 up"
    }


def test_what_only_the_daemon_knows_of_a_fabric() -> None:
    def counted(**change: str) -> Seen:
        numbers = replace(NUMBERS, fabrics=(replace(COUNTED, **change),))
        return replace(SEEN, daemon=replace(DAEMON, numbers=numbers))

    assert told(counted(trouble="no room")) == {"adopted lab": UP}
    assert told(counted(unanswered="silent")) == {"session lab": "vnet serve --stop; vnet ps"}
    silent = replace(DAEMON, silent=frozenset({("lab", "b"), ("other", "a")}))
    assert list(told(replace(SEEN, daemon=silent))) == ["guest-answers b"]


def test_a_vm_whose_disk_fails_is_told_with_what_lets_it_go_on() -> None:
    vms = (VmNumbers("a", "paused", 1, 0, is_failing=True), VmNumbers("b", "ready", 1, 0, is_failing=True))
    numbers = replace(NUMBERS, fabrics=(replace(COUNTED, vms=vms),))
    seen = replace(SEEN, daemon=replace(DAEMON, numbers=numbers))
    again = "vnet stop -n lab b --wait 1; vnet start -n lab b"
    assert told(seen) == {"guest-disks a": "vnet resume -n lab a", "guest-disks b": again}
    assert is_broken(diagnose(seen))


def test_a_vm_that_is_too_large_for_the_host_is_a_warning() -> None:
    small = replace(HOST_WELL, cpus=1, memory_bytes=150 << 20)
    assert told(replace(SEEN, host=small)) == {"size a": UP, "size b": UP}
    assert told(replace(SEEN, host=replace(small, memory_bytes=192 << 20))) == {}


def test_who_waits_for_the_host_is_a_warning_with_what_shows_it() -> None:
    waiting = (
        Strain("lab", "a", Lack.CPU, 0.3, "a waits 30 % of the time for a CPU: 9 vCPUs on 2 cores"),
        Strain("lab", "b", Lack.MEMORY, 0.3, "b waits"),
        Strain("other", "c", Lack.CPU, 0.3, "c waits"),
        Strain("", "host", Lack.MEMORY, 0.2, "something waits"),
    )
    seen = replace(SEEN, daemon=replace(DAEMON, strains=waiting))
    assert told(seen) == {
        "pressure host": "vnet top --sort memory",
        "guest-waits a": "vnet top --sort ready -n lab",
        "guest-waits b": "vnet top --sort memory -n lab",
    }
    assert not is_broken(diagnose(seen))


@pytest.mark.parametrize(
    ("daemon", "name", "mend"),
    [
        (DaemonSeen("/s", "1"), "daemon vnetd", "vnet ps"),
        (DaemonSeen("/s", "1", 99), "daemon-answers vnetd", "kill -9 99; vnet ps"),
        (DaemonSeen("/s", "1", 99, True, "hangs"), "daemon-answers vnetd", "kill -9 99; vnet ps"),
        (replace(DAEMON, version="0"), "daemon-version vnetd", "vnet serve --stop; vnet ps"),
    ],
)
def test_what_is_wrong_with_the_daemon(daemon: DaemonSeen, name: str, mend: str) -> None:
    assert told(replace(SEEN, daemon=daemon)) == {name: mend}


def test_a_host_without_fabrics_needs_no_daemon() -> None:
    assert told(Seen(HOST_WELL, DaemonSeen("/s", "1"))) == {}


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (replace(HOST_WELL, available_memory_bytes=1 << 20), "memory memory"),
        (replace(HOST_WELL, free_disk_bytes=1 << 20), "disk disk"),
        (
            replace(HOST_WELL, locations=(LocationSeen("fast", "/f", 1 << 40, "is missing"),)),
            "locations fast",
        ),
        (replace(HOST_WELL, locations=(LocationSeen("fast", "/f", 1 << 20),)), "locations fast"),
        (replace(HOST_WELL, now_s=1e9), "clock clock"),
        (
            replace(HOST_WELL, gone_images=(("0123456789abcdef", ("lab/a/data",)),)),
            "images image 0123456789ab",
        ),
        (replace(HOST_WELL, old_snapshots=(("lab", 2),)), "snapshots lab"),
        (replace(HOST_WELL, accel="tcg", accel_reason="KVM is emulated here"), "kvm kvm"),
    ],
)
def test_what_a_host_is_short_of_is_a_warning(host: HostSeen, name: str) -> None:
    seen = replace(SEEN, host=host)
    assert list(told(seen)) == [name]
    assert not is_broken(diagnose(seen))


def test_leftovers_are_warned_of_and_processes_go_first() -> None:
    left = Leftovers(("vnet-old",), ("/run/vnet/fabrics/old one",), (Process(7, "qemu", "old"),))
    found = told(replace(SEEN, leftovers=left))
    assert list(found.values()) == [
        "kill -9 7",
        "ip netns delete vnet-old",
        "rm -r '/run/vnet/fabrics/old one'",
    ]
    assert not is_broken(diagnose(replace(SEEN, leftovers=left)))


def test_a_database_that_cannot_be_read_is_told() -> None:
    assert list(told(replace(SEEN, store_problem="spoiled"))) == ["database database"]


def test_commands_can_be_pasted_into_a_shell() -> None:
    for fabric, _ in SICK.values():
        for mend in told(replace(SEEN, fabrics=(fabric,))).values():
            assert shlex.split(mend)


def test_vcpus_that_nobody_uses_are_told_by_name() -> None:
    lazy = replace(COUNTED.vms[0], cpus=4, uptime_s=9000.0, peak_cpus=0.4, watched_s=7200.0)
    counted = replace(NUMBERS, fabrics=(replace(COUNTED, vms=(lazy, COUNTED.vms[1])),))
    assert told(replace(SEEN, daemon=replace(DAEMON, numbers=counted))) == {
        "size a": "vnet up -f 'my lab.vnet.yaml'"
    }
