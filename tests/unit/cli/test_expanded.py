"""A topology written out means what it meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from vnet.cli.expanded import expanded
from vnet.policy.compile import compile
from vnet.services.gateway import forwarding
from vnet.topology.inventory import expand
from vnet.topology.load import load_text

TOPOLOGIES = sorted((Path(__file__).parents[3] / "topologies").rglob("*.vnet.yaml"))
MIRRORED = """\
name: mirrored
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  web: {networks: [lan], replicas: 2}
  ids: {interfaces: {span0: {mirror_only: true}}}
mirrors:
  all: {source: "network:lan", to: "ids:span0"}
  one: {source: "web-1:eth0", direction: out, filter: tcp, to: "vxlan:192.0.2.1/7"}
  each: {source: "web:eth0", to: "pcap:web.pcapng", snaplen: 96}
"""


def again(text: str, name: str) -> tuple[dict[str, object], dict[str, object]]:
    """What is printed of a file, and of what was printed."""
    topology = load_text(text, name, {})
    first = expanded(topology, expand(topology, {}))
    topology = load_text(yaml.safe_dump(first), name, {})
    return first, expanded(topology, expand(topology, {}))


@pytest.mark.parametrize(
    "path", [each for each in TOPOLOGIES if "include" not in each.read_text()], ids=lambda path: path.name
)
def test_what_is_written_out_stays_when_written_out_again(path: Path) -> None:
    first, second = again(path.read_text(), path.name)
    assert first == second


def test_mirrors_of_replicas_are_one_for_each() -> None:
    first, second = again(MIRRORED, "mirrored.vnet.yaml")
    assert first == second
    assert first["mirrors"] == {
        "all": {"source": "network:lan", "direction": "both", "to": "ids:span0"},
        "one": {"source": "web-1:eth0", "direction": "out", "to": "vxlan:192.0.2.1:4789/7", "filter": "tcp"},
        "each-web-1": {
            "source": "web-1:eth0",
            "direction": "both",
            "to": "pcap:web-1-web.pcapng",
            "snaplen": 96,
        },
        "each-web-2": {
            "source": "web-2:eth0",
            "direction": "both",
            "to": "pcap:web-2-web.pcapng",
            "snaplen": 96,
        },
    }


def test_flows_of_what_is_written_out_are_the_same() -> None:
    topology = load_text(MIRRORED, "mirrored.vnet.yaml", {})
    inventory = expand(topology, {})
    other = load_text(yaml.safe_dump(expanded(topology, inventory)), "mirrored.vnet.yaml", {})
    assert compile(other, expand(other, inventory.assignments)).flows == compile(topology, inventory).flows


WHOLE = """\
name: whole
images:
  small: {path: /images/small.qcow2, sha256: SUM, format: qcow2, cloud_init: true}
  direct: {kernel: /images/vmlinuz, initrd: /images/initrd, cmdline: "console=ttyS0 quiet"}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
routers: {gw: {networks: [lan], uplink: host}}
vms:
  db:
    networks: [lan]
    image: small
    memory: 512M
    disks: [{name: root, size: 4G}, {name: data, size: 10G, format: raw, preallocated: true},
            {name: secret, size: 1G, encrypt: true, location: fast}]
    boot: {firmware: uefi, iso: /images/tools.iso, first: iso}
    cloud_init: {user: ada, password_hash: "$$6$$salt$$hash", packages: [htop], runcmd: ["echo $$HOME"]}
    restart: on-failure:5
    autostart: true
    healthcheck: {test: [pg_isready], interval: 10s, timeout: 2.5s, retries: 5, start_period: 2m}
    ports: ["0.0.0.0:5432:5432/tcp", "53:5353/udp"]
  bare: {networks: [lan], image: small, cloud_init: false, memory: 512M}
  quick: {networks: [lan], image: direct, boot: {cmdline: "console=ttyS0 debug"}}
  same: {networks: [lan], image: direct}
  own: {networks: [lan], boot: {kernel: /images/vmlinuz, cmdline: "root=/dev/vda"}}
  stored: {networks: [lan], image: distro, memory: 512M}
  web: {networks: [lan], replicas: 2, depends_on: {db: {condition: healthy}, bare: {}}}
""".replace("SUM", "ab" * 32)


def test_what_vms_boot_and_keep_is_written_out() -> None:
    topology = load_text(WHOLE, "whole.vnet.yaml", {})
    inventory = expand(topology, {})
    first = expanded(topology, inventory)
    other = load_text(yaml.safe_dump(first, sort_keys=False), "whole.vnet.yaml", {})
    assert expanded(other, expand(other, {})) == first
    for vm, same in zip(inventory.vms, expand(other, {}).vms, strict=True):
        assert (same.name, same.boot, same.image) == (vm.name, vm.boot, vm.image)
        assert [replace(disk, at=None) for disk in same.disks] == [
            replace(disk, at=None) for disk in vm.disks
        ]
        assert replace(same.life, depends_on=()) == replace(vm.life, depends_on=())
        assert same.awaits == vm.awaits
        ports = [
            [(each.listen, each.port, each.guest_port, each.protocol) for each in in_.ports]
            for in_ in (topology.vms[vm.spec], other.vms[vm.name])
        ]
        assert ports[0] == ports[1]


SHARED = """\
name: shared
networks:
  lan:
    vlan: 10
    subnets: {cidr: 10.0.0.0/24, dhcp: {reservations: {web-2.eth0: 10.0.0.77, app.eth1: 10.0.0.78}}}
  side: {vlan: 20, subnets: 10.2.0.0/24}
routers: {gw: {networks: [lan], uplink: host}}
vms:
  app: {networks: [side, lan], depends_on: {web: {}, more: {}}}
  web:
    replicas: 3
    interfaces: {eth0: {network: lan, rate: 10M}, eth1: {network: side}, span0: {mirror_only: true}}
    ports: ["0.0.0.0:443:443/tcp"]
    depends_on: {more: {}}
  more: {networks: [side], replicas: 2}
  one: {networks: [lan], replicas: 1, ports: ["8080:80/tcp"]}
  none: {networks: [lan], replicas: 0, ports: ["8081:80/tcp"]}
policies: [{name: all, applied_to: [vm:web, vm:more-1], ingress: [{from: vm:web-2}, {from: vm:app}]}]
mirrors: {each: {source: "web:eth0", to: "pcap:web.pcapng"}}
"""


def test_replicas_that_share_ports_stay_one_vm_and_all_means_what_it_meant() -> None:
    topology = load_text(SHARED, "shared.vnet.yaml", {})
    inventory = expand(topology, {})
    first = expanded(topology, inventory)
    assert list(first["vms"]) == ["app", "web", "more-1", "more-2", "one-1"]
    web = first["vms"]["web"]
    assert (web["replicas"], web["ports"]) == (3, ["0.0.0.0:443:443/tcp"])
    assert first["vms"]["one-1"]["ports"] == ["127.0.0.1:8080:80/tcp"]
    other = load_text(yaml.safe_dump(first, sort_keys=False), "shared.vnet.yaml", {})
    again = expand(other, {})
    assert expanded(other, again) == first
    for vm, same in zip(inventory.vms, again.vms, strict=True):
        assert (same.name, {each.vm for each in same.awaits}) == (vm.name, {each.vm for each in vm.awaits})
        assert [(nic.name, nic.mac, nic.addresses, nic.line) for nic in same.nics] == [
            (nic.name, nic.mac, nic.addresses, nic.line) for nic in vm.nics
        ]
    assert compile(other, again).flows == compile(topology, inventory).flows
    (gateway,) = inventory.exits
    assert forwarding(other, again, gateway).doors == forwarding(topology, inventory, gateway).doors
    assert len(forwarding(topology, inventory, gateway).doors[0].targets) == 3
