"""Addresses and names on a real fabric: real clients ask the network's own dnsmasq, and nobody else can."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from tests.net.client import client, leased, run
from tests.unit.fabric.fakes import FakeGuests, World
from tests.waiting import until_answered, until_async
from vnet.base import paths
from vnet.base.drop import DropReason
from vnet.base.errors import HostError
from vnet.fabric.asked import Asked
from vnet.fabric.live import dnsmasq, netns
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.host import uptime_s
from vnet.fabric.live.network import HostNetwork
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.registry import Host
from vnet.fabric.live.rule_log import RuleLog
from vnet.fabric.live.service import Service
from vnet.fabric.live.services import HostServices
from vnet.fabric.live.store import SqliteStore
from vnet.fabric.live.switch import HostSwitch
from vnet.fabric.live.wiring import tidy
from vnet.fabric.progress import silent
from vnet.fabric.store import Source
from vnet.hv.spec import format_mac
from vnet.services.dhcp import Files
from vnet.topology.inventory import Nic
from vnet.topology.routing import gateway_mac

T = TypeVar("T")

PREFIX = "vntsvc-"
VMS = "vms: {a: {networks: [front]}, b: {networks: [front]}}\n"
PINS = Path("/sys/fs/bpf/vntsvc")
NETNS = f"{PREFIX}lab"
TEXT = """\
name: lab
networks:
  front:
    vlan: 10
    dns: true
    subnets: [{cidr: 10.10.10.0/24, dhcp: {lease: 2h}}, {cidr: "fd00:10::/64", dhcp: true}]
  back: {vlan: 20, dns: true, subnets: [{cidr: 10.10.20.0/24, dhcp: true}, {cidr: "fd00:20::/64", ra: slaac}]}
vms:
  a: {networks: [front]}
  b: {networks: [front, back]}
"""


@contextmanager
def host() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="vntsvc-"))
    names = {
        "VNET_RUN_DIR": str(made / "run"),
        "VNET_STATE_DIR": str(made / "state"),
        "VNET_BPF_DIR": str(PINS),
        "VNET_NETNS_PREFIX": PREFIX,
    }
    before = {name: os.environ.get(name) for name in names}
    made.chmod(0o711)
    os.environ |= names
    try:
        yield made
    finally:
        left = [str(each) for each in Path("/var/run/netns").glob(f"{PREFIX}*")]
        left += [str(each) for each in PINS.glob("*")] + [str(each) for each in made.glob("state/services/*")]
        for each in Path("/var/run/netns").glob(f"{PREFIX}*"):
            netns.remove(each.name)
        shutil.rmtree(PINS / "lab", ignore_errors=True)
        shutil.rmtree(made)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    assert not left, left


def make_engine(directory: Path, world: World) -> Engine:

    def parts(fabric: str) -> Parts:
        log, name = RuleLog(paths.log_dir(fabric)), paths.netns(fabric)
        services = HostServices(fabric, name)
        return Parts(HostNetwork(name), HostSwitch(fabric, log.see), FakeGuests(world, fabric), log, services)

    here = Host(lambda: None, lambda: 8 << 30, lambda: "boot", tidy, partial(datetime.now, UTC), uptime_s)
    return Engine(SqliteStore(directory / "state" / "vnet.db"), parts, here, lambda declared: ())


class Lab:
    """A fabric that is up."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.world = directory, World()
        self.engine = make_engine(directory, self.world)

    async def up(self, text: str = TEXT) -> list[str]:
        outcome = await self.engine.up(Source("lab.vnet.yaml", text), silent)
        return [str(action) for action in outcome.actions]

    async def again(self) -> None:
        """The daemon is gone, and a new one has come."""
        await self.engine.close()
        self.engine = make_engine(self.directory, self.world)
        await self.engine.adopt()

    async def revived(self) -> list[str]:
        return [each.network for each in await self.engine.fabric("lab").parts.services.revive()]

    def nic(self, name: str) -> Nic:
        declared = self.engine.fabric("lab").declared
        assert declared
        return next(nic for nic in declared.inventory.nics if nic.name == name)

    @contextmanager
    def client(self, nic: str) -> Iterator[str]:
        mac = format_mac(self.nic(nic).mac)
        with client(f"{PREFIX}{nic.replace('.', '-')}", NETNS, nic, mac) as name:
            yield name

    def addresses(self, nic: str) -> list[str]:
        return [str(each) for each in self.nic(nic).addresses]

    def pid(self, network: str) -> int:
        folder = paths.service_dir("lab")
        found = dnsmasq.find(dnsmasq.Folders(folder / f"{network}.d", folder / network))
        assert found
        found.close()
        return found.pid


def living(life: Callable[[Lab], Awaitable[None]], text: str = TEXT) -> None:
    async def whole(directory: Path) -> None:
        lab = Lab(directory)
        try:
            await lab.up(text)
            await life(lab)
        finally:
            await lab.engine.down("lab", silent)
            await lab.engine.close()

    with host() as directory:
        asyncio.run(whole(directory))


def static(name: str, *addresses: str) -> None:
    """Give a client addresses, as the guests' image does."""
    for address in addresses:
        more = " nodad" if ":" in address else ""
        assert run(name, f"ip addr replace {address} dev eth0{more}").returncode == 0


def answers(name: str, question: str, server: str = "10.10.10.1") -> str:
    """What dig prints of the answer, and the status."""
    done = run(name, f"dig +time=2 +tries=1 +noall +answer +comments @{server} {question}")
    return done.stdout + done.stderr


async def thread(function: Callable[..., T], *args: object) -> T:
    return await asyncio.to_thread(function, *args)


@pytest.mark.parametrize("more", ["", "-B"], ids=["unicast", "broadcast"])
def test_a_guest_is_told_the_address_that_it_was_given(more: str) -> None:
    async def life(lab: Lab) -> None:
        with lab.client("a.eth0") as name:
            told = await thread(leased, name, more)
            address = lab.addresses("a.eth0")[0].partition("/")[0]
            assert f"ip={address}\n" in told, told
            for line in ("lease=7200", "dns=10.10.10.1", "mtu=1500", "search=lab.internal", "mask=24"):
                assert f"{line}\n" in told, told
            assert "router=" not in told
            ((network, lease),) = await lab.engine.fabric("lab").parts.services.leases()
            assert (network, str(lease.address), lease.name) == ("front", address, "a")
            assert lease.expires_s and 7000 < lease.expires_s - time.time() <= 7200

    living(life)


def test_names_of_all_vms_are_told_and_no_others_over_both_versions() -> None:
    async def life(lab: Lab) -> None:
        with lab.client("a.eth0") as name:
            own = lab.addresses("a.eth0")
            static(name, *own)
            front, back = lab.addresses("b.eth0"), lab.addresses("b.eth1")
            for server in ("10.10.10.1", "fd00:10::1"):
                ask = partial(answers, name, server=server)
                assert front[0].partition("/")[0] in await thread(ask, "b.front.lab.internal A")
                assert front[1].partition("/")[0] in await thread(ask, "b.front.lab.internal AAAA")
                assert back[0].partition("/")[0] in await thread(ask, "+tcp b.back.lab.internal A")
                assert "a.lab.internal." in await thread(ask, f"-x {own[0].partition('/')[0]}")
                assert "a.lab.internal." in await thread(ask, f"-x {own[1].partition('/')[0]}")
                assert "NXDOMAIN" in await thread(ask, "nobody.lab.internal A")
                assert "REFUSED" in await thread(ask, "example.org A")
            told = await thread(answers, name, "+short b.lab.internal A")
            near = {word for word in told.split() if word.startswith("10.10.") and "#" not in word}
            assert near == {front[0].partition("/")[0]}, "the one that the guest can reach"

    living(life)


def test_the_server_answers_pings_and_nothing_else() -> None:
    async def life(lab: Lab) -> None:
        with lab.client("a.eth0") as name:
            static(name, *lab.addresses("a.eth0"))
            for server in ("10.10.10.1", "fd00:10::1"):
                assert (await thread(run, name, f"ping -c 1 -W 2 {server}")).returncode == 0
            before = await lab.engine.fabric("lab").parts.switch.drop_counts()
            done = await thread(run, name, "busybox nc -w 1 10.10.10.1 22 </dev/null")
            assert done.returncode != 0 and "refused" not in done.stderr
            after = await lab.engine.fabric("lab").parts.switch.drop_counts()
            assert after[DropReason.NO_DST] > before.get(DropReason.NO_DST, 0)

    living(life)


def test_another_network_reaches_its_own_server_only() -> None:
    async def life(lab: Lab) -> None:
        with lab.client("b.eth1") as name:
            static(name, *lab.addresses("b.eth1"))
            run(name, "ip route add default dev eth0")
            assert "NOERROR" in await thread(answers, name, "a.lab.internal A", "10.10.20.1")
            assert "NOERROR" not in await thread(answers, name, "a.lab.internal A", "10.10.10.1")
            mac = format_mac(gateway_mac("lab"))
            run(name, f"ip neigh replace 10.10.10.1 lladdr {mac} dev eth0")
            assert "NOERROR" not in await thread(answers, name, "a.lab.internal A", "10.10.10.1")

    living(life)


def test_a_guest_that_serves_addresses_is_not_heard() -> None:
    async def life(lab: Lab) -> None:
        with lab.client("a.eth0") as client_name, lab.client("b.eth0") as rogue:
            static(rogue, *lab.addresses("b.eth0"))
            os.kill(lab.pid("front"), signal.SIGKILL)
            serve = (
                "timeout 60 /usr/sbin/dnsmasq -k --user=root --pid-file= --port=0 --interface=eth0"
                " --dhcp-authoritative --dhcp-range=10.10.10.2,10.10.10.9 --dhcp-leasefile=/dev/null"
            )
            other = await asyncio.create_subprocess_shell(f"ip netns exec {rogue} {serve}")
            try:
                await until_async(lambda: ":67 " in run(rogue, "ss -lnu").stdout)
                before = await lab.engine.fabric("lab").parts.switch.drop_counts()
                told = await thread(leased, client_name)
                assert "ip=" not in told, told
                assert await lab.revived() == ["front"]
                assert "ip=10.10.10.2\n" in await thread(leased, client_name)
                offer = (
                    f"Ether(src=get_if_hwaddr('eth0'), dst='{format_mac(lab.nic('a.eth0').mac)}')"
                    "/IP(src='10.10.10.3', dst='255.255.255.255')/UDP(sport=67, dport=68)/BOOTP(op=2)"
                )
                scapy = f"from scapy.all import *; sendp({offer}, iface='eth0', verbose=0)"
                done = await thread(run, rogue, f'{sys.executable} -c "{scapy}"')
                assert done.returncode == 0, done.stderr
                after = await lab.engine.fabric("lab").parts.switch.drop_counts()
                assert after[DropReason.ROGUE_DHCP] > before.get(DropReason.ROGUE_DHCP, 0)
            finally:
                other.terminate()
                await other.wait()

    living(life)


def test_a_killed_server_comes_back_and_forgets_no_lease() -> None:
    async def life(lab: Lab) -> None:
        services = lab.engine.fabric("lab").parts.services
        with lab.client("a.eth0") as name:
            await thread(leased, name)
            (had,) = await services.leases()
            os.kill(lab.pid("front"), signal.SIGKILL)
            assert await until_answered(services.dead) == ("front",)
            assert await lab.revived() == ["front"]
            assert await services.dead() == ()
            assert (await services.leases()) == (had,)
            assert "ip=10.10.10.2\n" in await thread(leased, name)

    living(life)


def test_it_goes_on_without_a_daemon_and_is_taken_over_by_the_next() -> None:
    async def life(lab: Lab) -> None:
        pid = lab.pid("front")
        with lab.client("a.eth0") as name:
            await lab.engine.close()
            assert "ip=10.10.10.2\n" in await thread(leased, name)
            await lab.again()
            assert lab.engine.fabric("lab").trouble == ""
            assert lab.pid("front") == pid
            assert await lab.up() == []

    living(life)


def test_a_new_vm_is_known_at_once_and_the_server_runs_on() -> None:
    async def life(lab: Lab) -> None:
        pid = lab.pid("front")
        with lab.client("a.eth0") as name:
            static(name, *lab.addresses("a.eth0"))
            actions = await lab.up(TEXT + "  c: {networks: [front]}\n")
            assert "answer the guests of network front" in actions
            assert "10.10.10.4" in await thread(answers, name, "c.lab.internal A")
            assert lab.pid("front") == pid
            await lab.up(TEXT.replace("lease: 2h", "lease: 3h"))
            assert lab.pid("front") != pid
            assert "lease=10800\n" in await thread(leased, name)

    living(life)


def test_it_has_few_rights_and_a_user_and_a_folder_of_its_own() -> None:
    async def life(lab: Lab) -> None:
        users = set()
        for network in ("front", "back"):
            lines = Path(f"/proc/{lab.pid(network)}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines)
            wanted = 1 << 10 | 1 << 12 | 1 << 13  # CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW
            for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
                assert int(status[kind], 16) == wanted, kind
            assert status["NoNewPrivs"] == "1" and status["Groups"].strip() == ""
            user = int(status["Uid"].split()[0])
            folder = (paths.service_dir("lab") / network).stat()
            assert (folder.st_uid, folder.st_mode & 0o777) == (user, 0o700)
            users.add(user)
            own = [path.name for path in (paths.service_dir("lab") / network).iterdir()]
            assert own == ["leases"], "all that it can write"
            told = paths.service_dir("lab") / f"{network}.d"
            assert all(path.stat().st_uid == 0 for path in (told, *told.iterdir()))
            assert not any(path.stat().st_mode & 0o022 for path in (told, *told.iterdir()))
        assert len(users) == 2 and 0 not in users

    living(life)


def test_ipv6_addresses_by_dhcp_and_by_advertisements() -> None:
    async def life(lab: Lab) -> None:
        with lab.client("a.eth0") as name:
            told = await thread(dhclient6, name)
            assert lab.addresses("a.eth0")[1].partition("/")[0] in told, told
        with lab.client("b.eth1") as name:
            run(name, "ip link set eth0 down; sysctl -qw net.ipv6.conf.eth0.accept_ra=2; ip link set eth0 up")
            address = lab.addresses("b.eth1")[1]
            for _ in range(50):
                shown = (await thread(run, name, "ip -6 addr show dev eth0; ip -6 route")).stdout
                if address in shown:
                    break
                await asyncio.sleep(0.1)
            assert address in shown, shown
            assert "default via" not in shown

    living(life)


def dhclient6(name: str) -> str:
    """What dhclient gets over IPv6."""
    folder = Path(tempfile.mkdtemp(prefix="vntsvc-"))
    try:
        files = f"-pf {folder}/pid -lf {folder}/leases -sf /bin/true"
        done = run(
            name, f"timeout 15 dhclient -6 -1 -d {files} eth0 & sleep 4; kill $!; wait; cat {folder}/leases"
        )
        return done.stdout + done.stderr
    finally:
        shutil.rmtree(folder)


def test_a_drill_finds_nothing_but_what_the_server_is_there_for() -> None:
    async def life(lab: Lab) -> None:
        rows = await Service(lab.engine).drill("lab", "b", (), silent)
        assert [row for row in rows if row["outcome"] in ("got through", "lost")] == []

    living(life)


@pytest.mark.parametrize("target", ["10.10.10.1", "fd00:10::1"])
def test_a_trace_says_that_the_server_is_reached_and_why(target: str) -> None:
    async def life(lab: Lab) -> None:
        service = Service(lab.engine)
        told = await service.trace("lab", Asked("a", target, "53/udp"))
        assert "always permitted" in str(told)
        refused = await service.trace("lab", Asked("a", target, "22/tcp"))
        assert "answers DHCP, DNS and pings only" in str(refused)

    living(life)


ONLY_IPV6 = """\
name: lab
networks:
  six: {vlan: 10, dns: lab.example, isolation: isolated, subnets: {cidr: "fd00:6::/64", dhcp: true}}
vms: {a: {networks: [six]}, b: {networks: [six]}}
policies: [{name: closed, applied_to: any, ingress: [], egress: []}]
"""


def test_a_network_of_ipv6_alone_whose_guests_are_closed_and_isolated() -> None:
    async def life(lab: Lab) -> None:
        with lab.client("a.eth0") as name:
            (address,) = lab.addresses("a.eth0")
            assert address.partition("/")[0] in await thread(dhclient6, name)
            static(name, address)
            (other,) = lab.addresses("b.eth0")
            ask = partial(answers, name, server="fd00:6::1")
            assert other.partition("/")[0] in await thread(ask, "b.lab.example AAAA")
            assert "NXDOMAIN" in await thread(ask, "c.lab.example AAAA")
            assert (await thread(run, name, f"ping -c 1 -W 1 {other.partition('/')[0]}")).returncode != 0

    living(life, ONLY_IPV6)


ROUTED = TEXT.replace("vms:\n", "routers: {gw: {networks: [front, back]}}\nvms:\n") + (
    "policies: [{name: open, applied_to: any, ingress: [{from: any, ports: [icmp]}]}]\n"
)


def test_in_a_routed_network_guests_get_the_way_out_with_their_addresses() -> None:
    async def life(lab: Lab) -> None:
        with lab.client("a.eth0") as name, lab.client("b.eth1") as other:
            told = await thread(leased, name)
            assert "router=10.10.10.1\n" in told, told
            assert "dns=10.10.10.1\n" in told, told
            static(name, *lab.addresses("a.eth0"))
            static(other, *lab.addresses("b.eth1"))
            run(name, "ip route replace default via 10.10.10.1")
            run(other, "ip route replace default via 10.10.20.1")
            far = lab.addresses("b.eth1")[0].partition("/")[0]
            assert (await thread(run, name, "ping -c 1 -W 2 10.10.10.1")).returncode == 0
            assert (await thread(run, name, f"ping -c 1 -W 2 {far}")).returncode == 0
            run(name, "ip -6 route replace default via fd00:10::1")
            for address in ("fd00:10::1", "fd00:20::1"):
                assert (await thread(run, name, f"ping -c 1 -W 2 {address}")).returncode == 0, address
            answer = await thread(answers, name, "b.back.lab.internal AAAA", "fd00:10::1")
            assert lab.addresses("b.eth1")[1].partition("/")[0] in answer
            for more in ("", "+tcp "):
                assert far in await thread(answers, name, f"{more}b.back.lab.internal A")
            assert "NOERROR" not in await thread(answers, name, "b.lab.internal A", "10.10.20.1")
            assert "ip=10.10.10.2\n" in await thread(leased, name)
            run(
                other, "ip link set eth0 down; sysctl -qw net.ipv6.conf.eth0.accept_ra=2; ip link set eth0 up"
            )
            shown = await thread(run, other, "for i in 1 2 3 4 5 6; do sleep 0.5; ip -6 route; done")
            assert "default via fe80::" in shown.stdout, shown.stdout

    living(life, ROUTED)


def test_a_service_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = 'name: lab\nnetworks: {front: {vlan: 10, subnets: [10.10.10.0/24, "fd00:10::/64"]}}\n'

    async def life(lab: Lab) -> None:
        before = spaces()
        config = "nonsense=1\n"
        whole = dnsmasq.write

        def spoiled(folders: dnsmasq.Folders, files: Files) -> None:
            whole(folders, replace(files, config=config))

        with monkeypatch.context() as patched:
            patched.setattr(dnsmasq, "write", spoiled)
            with pytest.raises(HostError, match="dnsmasq did not start"):
                await lab.up(TEXT)
        assert spaces() == before
        assert await lab.engine.fabric("lab").parts.services.networks() == ()
        assert "answer the guests of network front" in await lab.up(TEXT)
        os.kill(lab.pid("front"), signal.SIGKILL)
        await until_answered(lab.engine.fabric("lab").parts.services.dead)
        assert await lab.up(TEXT.replace("dns: true", "dns: false")) != []
        assert "answer the guests of network front no more" in await lab.up(plain + VMS)

    living(life, plain + VMS)


def spaces() -> list[str]:
    return sorted(each.name for each in Path("/var/run/netns").glob(f"{PREFIX}*"))


FORWARDING = """\
name: lab
networks:
  front:
    vlan: 10
    dns: {forwarders: [10.10.20.9, "fd00:20::9"]}
    mtu: MTU
    subnets: [{cidr: 10.10.10.0/24, dhcp: true}, {cidr: "fd00:10::/64", ra: slaac}]
  far: {vlan: 20, subnets: [10.10.20.0/24, "fd00:20::/64"]}
routers: {gw: {networks: [front, far]}}
vms:
  a: {networks: [front]}
  names: {interfaces: {eth0: {network: far, addresses: [10.10.20.9/24, "fd00:20::9/64"]}}}
policies: [{name: closed, applied_to: any, ingress: [], egress: []}]
"""


def test_names_outside_are_asked_of_a_forwarder_by_either_version_of_ip() -> None:
    async def life(lab: Lab) -> None:
        with lab.client("a.eth0") as name, lab.client("names.eth0") as far:
            static(name, *lab.addresses("a.eth0"))
            static(far, *lab.addresses("names.eth0"))
            run(far, "ip route add default via 10.10.20.1; ip -6 route add default via fd00:20::1")
            serve = (
                "timeout 60 /usr/sbin/dnsmasq -k --user=root --pid-file= --no-resolv --no-hosts"
                " --interface=eth0 --address=/www.example.com/192.0.2.80 --txt-record=long.example.com,"
                + "x"
                * 200
            )
            other = await asyncio.create_subprocess_shell(f"ip netns exec {far} {serve}")
            try:
                await until_async(lambda: ":53 " in run(far, "ss -lnt").stdout)
                assert "192.0.2.80" in await thread(answers, name, "www.example.com A")
                assert "x" * 200 in await thread(answers, name, "+tcp long.example.com TXT", "fd00:10::1")
                assert lab.addresses("names.eth0")[0].partition("/")[0] in await thread(
                    answers, name, "names.lab.internal A"
                )
                assert "NXDOMAIN" in await thread(answers, name, "www.internal A")
                space = f"{PREFIX}lab.front"
                run(space, "ip route del 10.10.20.9")
                assert "192.0.2.80" in await thread(answers, name, "www.example.com A"), "over IPv6 alone"
                refused = await thread(run, space, "ping -c 1 -W 1 fd00:20::9")
                assert refused.returncode != 0
            finally:
                other.terminate()
                await other.wait()

    living(life, FORWARDING.replace("MTU", "auto"))


def test_the_mtu_of_a_running_network_is_changed_and_told_and_guests_are_made_again() -> None:
    async def life(lab: Lab) -> None:
        outcome = await lab.engine.plan(Source("lab.vnet.yaml", FORWARDING.replace("MTU", "9000")))
        told = {(line.kind.value, line.name): line.what for line in outcome.summary.lines}
        assert told["port", "a.eth0"] == "live: MTU 1500 → 9000"
        assert told["vm", "a"] == "eth0 MTU 1500 → 9000 (live)"
        assert ("vm", "names") not in told
        for mtu in (9000, 1400):
            await lab.up(FORWARDING.replace("MTU", str(mtu)))
            assert mtus(NETNS) == {"a.eth0": mtu, "@front": mtu, "names.eth0": 1500}
            assert mtus(f"{PREFIX}lab.front") == {"eth0": mtu}
            assert await lab.up(FORWARDING.replace("MTU", str(mtu))) == []
            with lab.client("a.eth0") as name:
                assert f"mtu={mtu}\n" in await thread(leased, name)
                run(name, "ip link set eth0 down mtu 9100; sysctl -qw net.ipv6.conf.eth0.accept_ra=2")
                run(name, "ip link set eth0 up")
                for _ in range(50):
                    known = (await thread(run, name, "cat /proc/sys/net/ipv6/conf/eth0/mtu")).stdout
                    if known == f"{mtu}\n":
                        break
                    await asyncio.sleep(0.1)
                assert known == f"{mtu}\n", "advertised"

    living(life, FORWARDING.replace("MTU", "auto"))


def mtus(space: str) -> dict[str, int]:
    """Of the interfaces of a namespace, without the loopback."""
    done = subprocess.run(["ip", "-n", space, "-j", "link"], capture_output=True, check=True)
    links = json.loads(done.stdout)
    return {link["ifname"]: link["mtu"] for link in links if link["ifname"] != "lo"}
