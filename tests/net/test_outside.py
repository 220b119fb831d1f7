"""The outside, end to end: VMs behind the real switch, gateways as the engine makes them, a host, a world."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import subprocess
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from tests.net.client import client
from tests.net.outside import (
    ALONE,
    AT_HOST,
    AT_WORLD,
    FAR,
    HOST,
    OWN,
    PREFIX,
    WORLD,
    Server,
    Talk,
    ask,
    ask_udp,
    everything,
    host,
    pings,
    serving,
    sh,
    wan,
)
from tests.unit.fabric.fakes import FakeGuests, World
from tests.waiting import until
from vnet.base import paths
from vnet.base.errors import HostError
from vnet.fabric.live import tending
from vnet.fabric.live.cables import HostCables
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.gateways import HostGateways
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
from vnet.fabric.state import Cable, Port
from vnet.fabric.store import Source
from vnet.hv.spec import format_mac
from vnet.switch.live.netns import inside
from vnet.topology.inventory import Nic
from vnet.topology.transfer import Transfer

T = TypeVar("T")

SHOP = f"{PREFIX}shop"
TRANSFER = Transfer.of("shop", "gw")
BY_HOST = {4: str(TRANSFER.host[0]), 6: str(TRANSFER.host[1])}
BY_GATEWAY = {4: str(TRANSFER.gateway[0]), 6: str(TRANSFER.gateway[1])}
FLOATING = {4: "198.51.100.50", 6: "2001:db8:51::50"}
SOON_S = 0.3
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
BOTH = pytest.mark.parametrize("version", [4, 6])
TEXT = """\
name: shop
networks:
  dmz: {vlan: 10, subnets: [10.10.10.0/24, "fd00:10::/64"], isolation: isolated}
  app: {vlan: 20, subnets: [10.10.20.0/24, "fd00:20::/64"]}
  data: {vlan: 30, subnets: [10.10.30.0/24, "fd00:30::/64"], internal: true}
routers:
  gw: {networks: [dmz, app], uplink: host, nat: masquerade}
vms:
  web:
    networks: [dmz]
    groups: [web]
    replicas: 2
    ports: ["0.0.0.0:8443:443/tcp", "[::]:8443:443/tcp", "0.0.0.0:2222:22/tcp", "127.0.0.1:2223:22/tcp"]
  app:
    networks: [app]
    groups: [app]
    ports: ["0.0.0.0:5353:53/udp"]
    floating: [198.51.100.50, "2001:db8:51::50"]
  db: {networks: [data]}
policies:
  - name: public-web
    applied_to: web
    ingress:
      - {from: internet, ports: [443/tcp]}
      - {from: host, ports: [22/tcp]}
  - name: public-app
    applied_to: app
    ingress: [{from: internet, ports: [53/udp, 80/tcp, icmp]}]
"""


WAN = """\
uplinks:
  wan:
    interface: wan0
    addresses: [203.0.113.2/24, "2001:db8:113::2/64"]
    gateway: [203.0.113.1, "2001:db8:113::1"]
"""


def make_engine(directory: Path, world: World) -> Engine:
    def parts(fabric: str) -> Parts:
        log, name = RuleLog(paths.log_dir(fabric)), paths.netns(fabric)
        return Parts(
            HostNetwork(name),
            HostSwitch(fabric, log.see),
            FakeGuests(world, fabric),
            log,
            HostServices(fabric, name),
            HostGateways(fabric, name),
        )

    here = Host(lambda: None, lambda: 8 << 30, lambda: "boot", tidy, partial(datetime.now, UTC), uptime_s)
    return Engine(SqliteStore(directory / "state" / "vnet.db"), parts, here, lambda declared: ())


class Lab:
    """A fabric that is up, with its clients and servers."""

    def __init__(self, directory: Path, runner: asyncio.Runner) -> None:
        self.directory, self.world, self.runner = directory, World(), runner
        self.engine = make_engine(directory, self.world)
        self.servers: dict[str, Server] = {}

    def do(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    def up(self, text: str = TEXT) -> list[str]:
        outcome = self.do(self.engine.up(Source("shop.vnet.yaml", text), silent))
        return [str(action) for action in outcome.actions]

    def again(self) -> None:
        """The daemon is gone, and a new one has come."""
        self.do(self.engine.close())
        self.engine = make_engine(self.directory, self.world)
        self.do(self.engine.adopt())

    def nic(self, name: str) -> Nic:
        declared = self.engine.fabric("shop").declared
        assert declared
        return next(nic for nic in declared.inventory.nics if nic.name == name)

    def address(self, vm: str, version: int) -> str:
        return next(str(each.ip) for each in self.nic(f"{vm}.eth0").addresses if each.version == version)

    @contextmanager
    def vm(self, name: str, *ports: int) -> Iterator[None]:
        """A VM with its addresses and routes, that serves on ports."""
        nic, space = self.nic(f"{name}.eth0"), space_of(name)
        with client(space, SHOP, nic.name, format_mac(nic.mac)):
            for each in nic.addresses:
                more = "nodad" if each.version == 6 else ""
                sh(f"ip -n {space} addr add {each} dev eth0 {more}")
                via = str(each.network.network_address + 1)
                sh(f"ip -n {space} -{each.version} route add default via {via}")
                for port in ports:
                    self.serve(name, port, str(each.ip))
            yield

    def serve(self, vm: str, port: int, address: str) -> None:
        self.servers[f"{vm}:{port} {address}"] = Server(space_of(vm), vm, port, address)

    def drops(self) -> list[str]:
        """The most recent packets that were dropped, in words."""
        self.do(asyncio.sleep(0.3))
        return list(self.do(Service(self.engine).drops("shop"))["recent"])


def space_of(vm: str) -> str:
    return f"{PREFIX}vm-{vm}"


WEB_1, APP, DB = map(space_of, ("web-1", "app", "db"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with host() as directory, asyncio.Runner() as runner, ExitStack() as stack:
        made = Lab(directory, runner)
        made.up()
        stack.callback(lambda: runner.run(made.engine.close()))
        stack.callback(lambda: runner.run(made.engine.down("shop", silent)))
        for vm, ports in {"web-1": (443, 22), "web-2": (443, 22), "app": (80, 53), "db": (80,)}.items():
            stack.enter_context(made.vm(vm, *ports))
        for version in (4, 6):
            made.servers[f"world {version}"] = Server(WORLD, "world", 80, AT_WORLD[version])
        stack.callback(lambda: [server.close() for server in made.servers.values()])
        yield made


@BOTH
def test_a_vm_reaches_the_world_by_tcp_udp_and_ping(lab: Lab, version: int) -> None:
    assert ask(WEB_1, AT_WORLD[version], 80) == f"world {AT_HOST[version]}"
    assert ask_udp(WEB_1, AT_WORLD[version], 80) == f"world {AT_HOST[version]}"
    assert pings(WEB_1, AT_WORLD[version])


@BOTH
def test_an_internal_network_has_no_way_out_and_no_way_in(lab: Lab, version: int) -> None:
    assert "no answer" in ask(DB, AT_WORLD[version], 80, timeout_s=SOON_S)
    sh(f"ip -n {WORLD} -{version} route add {lab.address('db', version)} via {AT_HOST[version]}")
    assert "no answer" in ask(WORLD, lab.address("db", version), 80, timeout_s=SOON_S)


@BOTH
def test_the_world_reaches_a_published_port_and_policies_see_who_asks(lab: Lab, version: int) -> None:
    seen = {ask(WORLD, AT_HOST[version], 8443) for _ in range(4)}
    assert seen == {f"web-{number} {AT_WORLD[version]}" for number in (1, 2)}


def test_a_port_that_no_rule_opens_is_dropped_and_the_drop_says_so(lab: Lab) -> None:
    assert "no answer" in ask(WORLD, AT_HOST[4], 2222, timeout_s=SOON_S)
    told = [line for line in lab.drops() if AT_WORLD[4] in line]
    assert told and all("POLICY" in line for line in told), lab.drops()


def test_the_host_is_the_host_and_nobody_else_is(lab: Lab) -> None:
    for address, port in (("127.0.0.1", 2223), ("127.0.0.1", 2222), (AT_HOST[4], 2222)):
        assert ask(HOST, address, port) in {f"web-{number} {BY_HOST[4]}" for number in (1, 2)}
    assert "no answer" in ask(HOST, "127.0.0.1", 8443, timeout_s=SOON_S)
    assert "no answer" in ask(APP, AT_HOST[4], 2222, timeout_s=SOON_S), "a VM is not taken for the host"
    assert "refused" in ask(WORLD, AT_HOST[4], 2223)


@BOTH
def test_a_vm_gets_through_to_a_published_port(lab: Lab, version: int) -> None:
    assert ask(APP, AT_HOST[version], 8443) in {f"web-{number} {BY_GATEWAY[version]}" for number in (1, 2)}
    found = {ask(WEB_1, AT_HOST[version], 8443) for _ in range(4)}
    assert found == {f"web-{number} {BY_GATEWAY[version]}" for number in (1, 2)}, "itself too"


SECOND = {
    "networks": '  ops: {vlan: 40, subnets: [10.10.40.0/24, "fd00:40::/64"]}',
    "routers": "  second: {networks: [ops], uplink: host, nat: masquerade}",
    "vms": "  ops: {networks: [ops]}",
}
"""Of who is behind another gateway."""


def test_nobody_else_is_taken_for_the_host(lab: Lab) -> None:
    text = TEXT.replace('"127.0.0.1:2223:22/tcp"]', '"127.0.0.1:2223:22/tcp", "[::]:2222:22/tcp"]')
    for heading, line in SECOND.items():
        text = text.replace(f"{heading}:\n", f"{heading}:\n{line}\n", 1)
    lab.up(text)
    with lab.vm("ops"):
        for version in (4, 6):
            assert "no answer" in ask(space_of("ops"), AT_HOST[version], 2222, timeout_s=SOON_S)
            found = ask(space_of("ops"), AT_HOST[version], 8443)
            assert found in {f"web-{number} {BY_GATEWAY[version]}" for number in (1, 2)}
            assert ask(space_of("ops"), FLOATING[version], 80) == f"app {BY_GATEWAY[version]}"
            assert ask(HOST, AT_HOST[version], 2222).startswith("web-")
            _pretend_to_be(BY_HOST[version], AT_HOST[version], 2222)
    found = lab.do(lab.engine.fabric("shop").parts.switch.connections())
    assert all(each.source.port != PRETENDED for each in found)
    lab.up()


PRETENDED = 4444


def _pretend_to_be(source: str, address: str, port: int) -> None:
    """The world sends from an address that is not its own."""
    where = f"{source}/{32 if ':' not in source else 128}"
    sh(f"ip -n {WORLD} addr add {where} dev lo nodad")
    try:
        with inside(WORLD), socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET) as made:
            made.bind((source, PRETENDED))
            made.settimeout(SOON_S)
            made.connect_ex((address, port))
    finally:
        sh(f"ip -n {WORLD} addr del {where} dev lo")


@contextmanager
def container() -> Iterator[str]:
    """Somebody on the host behind its own translation, as Docker has it."""
    name = f"{PREFIX}box"
    sh(f"ip netns add {name}")
    sh(f"ip link add box0 type veth peer name eth0 netns {name}")
    try:
        for command in (
            "ip addr add 172.17.0.1/16 dev box0; ip link set box0 up",
            f"ip -n {name} addr add 172.17.0.2/16 dev eth0; ip -n {name} link set eth0 up",
            f"ip -n {name} route add default via 172.17.0.1",
            "nft 'table ip box { chain post { type nat hook postrouting priority srcnat; };"
            ' chain post { ip saddr 172.17.0.0/16 oifname != "box0" masquerade; }; }\'',
        ):
            sh(command)
        yield name
    finally:
        sh(f"ip netns del {name}; nft delete table ip box")


def test_who_is_translated_by_the_host_is_not_the_host(lab: Lab) -> None:
    with container() as box:
        assert ask(box, AT_WORLD[4], 80) == f"world {AT_HOST[4]}"
        assert ask(box, AT_HOST[4], 8443) in {f"web-{number} 172.17.0.2" for number in (1, 2)}
        assert "no answer" in ask(box, AT_HOST[4], 2222, timeout_s=SOON_S)


@BOTH
def test_a_floating_address_is_its_vms_both_ways(lab: Lab, version: int) -> None:
    assert ask(WORLD, FLOATING[version], 80) == f"app {AT_WORLD[version]}"
    assert ask(APP, AT_WORLD[version], 80) == f"world {FLOATING[version]}"
    assert ask(WEB_1, FLOATING[version], 80) == f"app {BY_GATEWAY[version]}"
    assert pings(WORLD, FLOATING[version])
    assert "no answer" in ask(WORLD, FLOATING[version], 22, timeout_s=SOON_S)


def test_udp_is_published(lab: Lab) -> None:
    assert ask_udp(WORLD, AT_HOST[4], 5353) == f"app {AT_WORLD[4]}"


@BOTH
def test_who_goes_on_sending_datagrams_gets_to_who_is_there_by_now(lab: Lab, version: int) -> None:
    mine = '    ports: ["0.0.0.0:5353:53/udp", "[::]:5353:53/udp"]\n'
    floating = '    floating: [198.51.100.50, "2001:db8:51::50"]\n'
    text = TEXT.replace('    ports: ["0.0.0.0:5353:53/udp"]\n', mine)
    lab.up(text)
    with inside(WORLD), socket.socket(_FAMILY[version], socket.SOCK_DGRAM) as asker:
        asker.settimeout(1.0)
        asker.connect((AT_HOST[version], 5353))
        assert _asked(asker) == f"app {AT_WORLD[version]}"
        other = f"  other:\n    networks: [app]\n    groups: [app]\n{mine}"
        lab.up(text.replace(mine, "").replace(floating, "").replace("  db: ", f"{other}  db: "))
        with lab.vm("other", 53):
            assert _asked(asker) == f"other {AT_WORLD[version]}"
    lab.up()


def _asked(asker: socket.socket) -> str:
    asker.send(b"hello")
    return asker.recv(4096).decode().strip()


def test_a_replica_that_dies_gets_nothing_and_comes_back(lab: Lab) -> None:
    fabric = lab.engine.fabric("shop")
    dies = lab.address("web-2", 4)
    lab.servers[f"web-2:443 {dies}"].close()
    lab.do(tending.turn(lab.engine, fabric))
    assert {ask(WORLD, AT_HOST[4], 8443) for _ in range(4)} == {f"web-1 {AT_WORLD[4]}"}
    (told,) = lab.do(Service(lab.engine).inspect("shop"))["gateways"]
    assert (told["router"], told["by"], told["nat"]) == ("gw", "host", "masquerade")
    assert told["published"][0]["port"] == "0.0.0.0:8443/tcp"
    assert [each["answers"] for each in told["published"][0]["targets"]] == [True, False]
    assert told["floating"][FLOATING[4]] == lab.address("app", 4)
    assert lab.up() == [], "what is dead is no difference"
    lab.serve("web-2", 443, dies)
    lab.do(tending.turn(lab.engine, fabric))
    assert len({ask(WORLD, AT_HOST[4], 8443) for _ in range(4)}) == 2


def test_what_is_open_to_the_host_only_is_tried_as_the_host(lab: Lab) -> None:
    gateways = lab.engine.fabric("shop").parts.gateways
    lab.do(gateways.check())
    refused = {each.port for each in lab.do(gateways.silent())}
    assert refused == {22}, "the world may not ask for it"
    lab.up(TEXT.replace('"0.0.0.0:2222:22/tcp", ', ""))
    lab.do(gateways.check())
    assert lab.do(gateways.silent()) == ()
    lab.up()


@contextmanager
def running(space: str, *command: str) -> Iterator[None]:
    """A program in a namespace, as long as it is needed."""
    pipe = subprocess.DEVNULL
    process = subprocess.Popen(["ip", "netns", "exec", space, *command], stdout=pipe, stderr=pipe)
    try:
        yield
    finally:
        process.terminate()
        process.wait(5)


def eventually(command: str) -> str:
    """What a command prints, as soon as who is asked is there."""
    deadline_s = time.monotonic() + 5
    while True:
        try:
            return sh(command)
        except AssertionError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)


@BOTH
def test_curl_and_iperf3_reach_what_is_published(lab: Lab, version: int) -> None:
    doors = f"{'0.0.0.0' if version == 4 else '[::]'}:{{0}}:{{0}}/tcp"
    text = TEXT.replace(
        'ports: ["0.0.0.0:5353', f'ports: ["{doors.format(8080)}", "{doors.format(5201)}", "0.0.0.0:5353'
    )
    lab.up(text.replace("53/udp, 80/tcp", "53/udp, 80/tcp, 8080/tcp, 5201/tcp"))
    page = lab.directory / "page"
    page.write_bytes(bytes(range(256)) * 8192)
    at = AT_HOST[version] if version == 4 else f"[{AT_HOST[version]}]"
    with running(APP, "busybox", "httpd", "-f", "-p", "8080", "-h", str(lab.directory)):
        fetch = f"ip netns exec {WORLD} curl -gsf --max-time 10 http://{at}:8080/page | sha256sum"
        eventually(f"ip netns exec {WORLD} curl -gsf --max-time 10 -o /dev/null http://{at}:8080/page")
        assert sh(fetch).split()[0] == hashlib.sha256(page.read_bytes()).hexdigest()
    with running(APP, "iperf3", "-s"):
        measure = f"ip netns exec {WORLD} iperf3 -c {AT_HOST[version]} -t 1 -J"
        told = until(lambda: json.loads(eventually(measure))["end"].get("sum_received"))
    assert told["bytes"] > 1 << 20
    lab.up()


def test_names_of_the_outside_are_asked_of_the_forwarder(lab: Lab) -> None:
    dns = "dmz: {vlan: 10, dns: {forwarders: [198.51.100.7]},"
    lab.up(TEXT.replace("dmz: {vlan: 10,", dns))
    answer = ("--address=/example.test/192.0.2.99", "--address=/example.test/2001:db8::99")
    knows = ("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=53")
    ask_server = f"ip netns exec {WEB_1} dig +short +time=1 +tries=3"
    with running(WORLD, *knows, *answer, "--bind-interfaces", f"--listen-address={AT_WORLD[4]}"):
        eventually(f"ip netns exec {WORLD} dig +short +time=1 @{AT_WORLD[4]} example.test | grep -q 192")
        assert sh(f"{ask_server} @10.10.10.1 example.test") == "192.0.2.99\n"
        assert sh(f"{ask_server} +tcp @fd00:10::1 AAAA example.test") == "2001:db8::99\n"
        assert sh(f"{ask_server} @10.10.10.1 web-2.shop.internal") == f"{lab.address('web-2', 4)}\n"
    lab.up()


def test_connections_go_on_without_a_daemon_and_through_changes(lab: Lab) -> None:
    with Talk(WORLD, AT_HOST[4], 8443) as inward, Talk(WEB_1, AT_WORLD[6], 80) as outward:
        lab.do(lab.engine.close())
        assert inward.goes_on() and outward.goes_on()
        assert ask(WORLD, AT_HOST[4], 8443).startswith("web-")
        lab.engine = make_engine(lab.directory, lab.world)
        lab.do(lab.engine.adopt())
        assert lab.engine.fabric("shop").trouble == ""
        assert lab.up() == []
        actions = lab.up(TEXT.replace("5353:53/udp", "5454:53/udp"))
        assert actions == ["forward for router gw by the host"]
        assert ask_udp(WORLD, AT_HOST[4], 5454) == f"app {AT_WORLD[4]}"
        assert inward.goes_on() and outward.goes_on()
        lab.up()
        assert inward.goes_on() and outward.goes_on()


@pytest.mark.parametrize(
    "damage",
    [
        f"nft flush ruleset; ip netns exec {SHOP}.~gw nft flush ruleset",
        f"ip netns del {SHOP}.~gw",
        f"ip -n {SHOP} link del ~gw",
    ],
    ids=["rules", "namespace", "interface"],
)
def test_what_was_damaged_is_made_again_and_told(lab: Lab, damage: str) -> None:
    told: list[str] = []
    fabric = lab.engine.fabric("shop")
    tell, lab.engine.events.tell = lab.engine.events.tell, lambda kind, *rest, **_: told.append(kind.value)
    try:
        sh(damage)
        lab.do(tending.turn(lab.engine, fabric))
    finally:
        lab.engine.events.tell = tell
    assert told.count("gateway-mended") == 1
    for version in (4, 6):
        assert ask(WORLD, AT_HOST[version], 8443).startswith("web-")
        assert ask(WEB_1, AT_WORLD[version], 80) == f"world {AT_HOST[version]}"
    assert lab.up() == []


def test_up_makes_again_what_was_damaged_too(lab: Lab) -> None:
    sh(f"ip -n {SHOP} link del ~gw")
    assert "forward for router gw by the host" in lab.up()
    assert ask(WEB_1, AT_WORLD[4], 80) == f"world {AT_HOST[4]}"


def test_a_conflict_is_told_and_nothing_is_changed(lab: Lab) -> None:
    before = everything()
    taken = Server(HOST, "owner", 9443, "0.0.0.0")
    try:
        with pytest.raises(
            HostError, match="nothing was changed:\n  port 0.0.0.0:9443/tcp cannot be published"
        ):
            lab.up(TEXT.replace("0.0.0.0:8443", "0.0.0.0:9443"))
    finally:
        taken.close()
    assert everything() == before
    assert lab.up() == []


def test_without_translation_and_without_a_way_out(lab: Lab) -> None:
    lab.up(TEXT.replace("nat: masquerade", "nat: none"))
    for version, subnet in ((4, "10.10.10.0/24"), (6, "fd00:10::/64")):
        sh(f"ip -n {WORLD} route replace {subnet} via {AT_HOST[version]}")
        assert ask(WEB_1, AT_WORLD[version], 80) == f"world {lab.address('web-1', version)}"
        assert ask(WORLD, lab.address("web-1", version), 443) == f"web-1 {AT_WORLD[version]}"
        assert "no answer" in ask(WORLD, lab.address("web-1", version), 22, timeout_s=SOON_S)
    outside = ("    ports:", "    floating:")
    lines = [line for line in TEXT.splitlines() if not line.startswith(outside)]
    lab.up("\n".join(lines).replace(", uplink: host, nat: masquerade", ""))
    assert "no answer" in ask(WEB_1, AT_WORLD[4], 80, timeout_s=SOON_S)
    assert sh("nft list ruleset") == ""
    lab.up()
    assert ask(WEB_1, AT_WORLD[4], 80).startswith("world")


def test_an_uplink_of_its_own(lab: Lab) -> None:
    with wan():
        text = TEXT.replace("uplink: host, nat: masquerade", "uplink: wan")
        text = text.replace("198.51.100.50", ALONE[4]).replace("2001:db8:51::50", ALONE[6])
        text = text.replace("routers:", WAN + "routers:").replace("127.0.0.1:2223", "203.0.113.2:2223")
        lab.up(text)
        for version in (4, 6):
            with serving(Server(WORLD, "far", 80, FAR[version])):
                assert ask(WEB_1, FAR[version], 80) == f"far {OWN[version]}"
                assert ask(APP, FAR[version], 80) == f"far {ALONE[version]}"
            assert ask(WORLD, OWN[version], 8443).startswith("web-")
        assert "no answer" in ask(WORLD, OWN[4], 2223, timeout_s=SOON_S), "nobody is the host there"
        lab.again()
        assert lab.up(text) == []
        cable = Cable("trunk", "wan0", Port(99, "=trunk"))
        found = lab.do(HostCables("shop", SHOP, HOST).obstacles([cable]))
        assert "the gateway of router gw in fabric shop has the interface wan0" in str(found["trunk"])
        lab.up()
        assert ask(WORLD, AT_HOST[4], 8443).startswith("web-")
