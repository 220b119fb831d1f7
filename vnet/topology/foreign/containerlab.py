"""A containerlab file as a topology: nodes become micro guests, each link a network of its two ends.

Addresses that nodes of kind `linux` give themselves (`exec: [ip addr add ...]`) become those of their NICs.
Source: https://containerlab.dev/manual/topo-def-file/ and https://containerlab.dev/manual/nodes/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from math import ceil

from vnet.base.errors import InputError
from vnet.topology.foreign.sheet import NOTHING_LIKE_IT, Plain, Sheet, Vm, memory
from vnet.topology.foreign.tree import Tree, size_bytes

_BRIDGES = ("bridge", "ovs-bridge")
_OUTSIDE = ("host", "mgmt-net", "macvlan")
"""What stands in place of a node where a link leads out of the lab."""
_READ = ("kind", "image", "exec", "cpu", "memory", "labels", "group", "type", "ports")
_WHY = {
    "startup-config": "copy it with `vnet cp`, or make an image that has it",
    "binds": "give it `disks`, or copy files with `vnet cp`",
    "env": "the micro guest has no such environment: write a file with `vnet cp`",
    "env-files": "the micro guest has no such environment: write a file with `vnet cp`",
    "cmd": "start it with `vnet exec`, or make an image that does",
    "entrypoint": "start it with `vnet exec`, or make an image that does",
    "license": "copy it with `vnet cp`",
    "mgmt-ipv4": "there is no management network: `vnet exec` and `vnet console` need none",
    "mgmt-ipv6": "there is no management network: `vnet exec` and `vnet console` need none",
}
_ADDRESS = re.compile(r"ip (?:-[46] )?a(?:ddr(?:ess)?)? (?:add|replace) (\S+) dev (\S+)")


def imported(file: str, text: str, env: Mapping[str, str], fabric: str = "") -> Plain:
    """The topology of a containerlab file. Raises InputError with every fault found.

    Args:
        env: the values of variables; those that are missing are a fault where they are read.
        fabric: what it is to be called, if not as the file says.
    """
    tree = Tree.of(file, text, env)
    document = _Import(tree).document(fabric)
    if tree.reading.faults:
        raise InputError(tree.reading.faults)
    return document


@dataclass(frozen=True, slots=True)
class _End:
    """An end of a link."""

    node: str
    interface: str
    tree: Tree

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


class _Import:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._sheet = Sheet()
        self._vms: dict[str, Vm] = {}
        self._bridges: set[str] = set()
        self._keys: dict[str, dict[str, Tree]] = {}
        """What holds for each node: its own, its group's, its kind's."""
        self._plugs: dict[str, dict[str, Plain]] = {}
        """The NICs of each node by the names that the file has."""

    def document(self, fabric: str) -> Plain:
        nodes, links = self._tree.get("topology.nodes"), self._tree.get("topology.links")
        name = self._tree.get("name")
        if nodes is None:
            self._tree.fault("there are no nodes", 'a containerlab file has "topology: {nodes: ...}"')
        for called, tree in nodes.entries() if nodes else ():
            self._node(called, tree)
        for number, link in enumerate(links.items() if links else (), 1):
            self._link(number, link)
        for called, vm in self._vms.items():
            self._configure(called, vm)
        for key, value in self._tree.entries():
            if key not in ("name", "topology", "prefix") and not key.startswith("x-"):
                why = _WHY["mgmt-ipv4"] if key == "mgmt" else NOTHING_LIKE_IT
                self._sheet.leave_out(key, value.at, why)
        return self._sheet.document(fabric or (name.text() if name else "") or "lab")

    # -- nodes

    def _node(self, name: str, tree: Tree) -> None:
        keys = self._merged(tree)
        kind = keys["kind"].text() if "kind" in keys else ""
        if kind in _BRIDGES:
            self._bridges.add(name)
            self._sheet.network(name)
            return
        vm = self._vms[name] = self._sheet.vm(name, tree.at)
        self._plugs[name], self._keys[name] = {}, keys
        for key in ("kind", "type", "image"):
            if key in keys:
                vm.keys[f"x-{key}"] = keys[key].text()
        self._sizes(keys, vm)
        if "labels" in keys:
            vm.keys["labels"] = keys["labels"].pairs()
        if "group" in keys and (group := keys["group"].text()):
            vm.keys["labels"] = {**vm.keys.get("labels", {}), "group": group}
        for key, value in keys.items():
            if key not in _READ and not key.startswith("x-"):
                why = _WHY.get(key, NOTHING_LIKE_IT)
                self._sheet.leave_out(f"{vm.name}.{key}", value.at, why)
        if "ports" in keys:
            why = "they lead to its management network: publish `ports` of a network with a router"
            self._sheet.leave_out(f"{vm.name}.ports", keys["ports"].at, why)

    def _merged(self, tree: Tree) -> dict[str, Tree]:
        """A node's keys, then those of its group, its kind and the defaults, as far as they are not set."""
        keys = _keys(tree)
        defaults = _keys(self._tree.get("topology.defaults"))
        for several, key in (("groups", "group"), ("kinds", "kind")):
            named = keys.get(key) or defaults.get(key)
            whole = self._tree.get(f"topology.{several}")
            if named is not None and whole is not None:
                found = next((each for name, each in whole.entries() if name == named.text()), None)
                keys = {**_keys(found), **keys}
        return {**defaults, **keys}

    def _sizes(self, keys: Mapping[str, Tree], vm: Vm) -> None:
        size = size_bytes(keys["memory"]) if "memory" in keys else None
        if size is not None:
            vm.keys["memory"] = memory(size)
        number = keys["cpu"].number() if "cpu" in keys else None
        if number:
            vm.keys["cpus"] = ceil(number)
            if number != ceil(number):
                self._sheet.note(f"{vm.name}.cpus", keys["cpu"].at, f"{number:g} became {ceil(number)}")

    # -- links

    def _link(self, number: int, tree: Tree) -> None:
        kind = tree.get("type")
        if kind is not None and kind.text() != "veth":
            why = f"a link of type {kind.text()} leads out of the lab: declare an uplink"
            self._sheet.leave_out(f"link {number}", tree.at, why)
            return
        listed = tree.get("endpoints")
        ends = tuple(self._end(each) for each in (listed.items() if listed else ()))
        if len(ends) != 2:
            tree.fault(f"expected a link with two endpoints, found {len(ends)}")
            return
        outside = next((end for end in ends if end.node in _OUTSIDE), None)
        if outside is not None:
            why = f"{outside} is outside of the lab: declare an uplink that has the network"
            self._sheet.leave_out(f"link {number}", tree.at, why)
        bridge = next((end.node for end in ends if end.node in self._bridges), None)
        inside = [end for end in ends if end.node in self._vms]
        name = bridge or f"link-{number}"
        wanted = bridge or "-".join(end.node for end in inside)
        if outside is not None and inside and not bridge:
            wanted = f"{inside[0].node}-{inside[0].interface}"
        network = self._sheet.network(name, wanted)
        mtu = tree.get("mtu")
        if mtu is not None and (size := mtu.whole()):
            network.extra["mtu"] = size
        for end in inside:
            if end.interface in self._plugs[end.node]:
                end.tree.fault(f"{end} is the end of another link already")
            self._plugs[end.node][end.interface] = {"network": network.name}

    def _end(self, tree: Tree) -> _End:
        if tree.is_map:
            node, interface = tree.get("node"), tree.get("interface")
            end = _End(node.text() if node else "", interface.text() if interface else "", tree)
        else:
            end = _End(*tree.text().partition(":")[::2], tree)
        if end.node not in (*self._vms, *self._bridges, *_OUTSIDE):
            tree.fault(
                f"there is no node {end.node!r}", f"known: {', '.join(sorted({*self._vms, *self._bridges}))}"
            )
        return end

    # -- NICs

    def _configure(self, node: str, vm: Vm) -> None:
        given = self._plugs[node]
        names = _names(given)
        for called, nic in given.items():
            vm.interfaces[names[called]] = nic
        renamed = {called: name for called, name in names.items() if called != name}
        if renamed:
            vm.keys["x-interfaces"] = renamed
        commands = self._keys[node].get("exec")
        for command in commands.items() if commands else ():
            self._command(command, given, vm)

    def _command(self, tree: Tree, given: Mapping[str, Plain], vm: Vm) -> None:
        found = _ADDRESS.search(tree.text())
        if found is None or found[2] not in given:
            self._sheet.leave_out(f"{vm.name}.exec {tree.text()}", tree.at, "run it with `vnet exec`")
            return
        try:
            address = ip_interface(found[1])
        except ValueError as error:
            tree.fault(str(error))
            return
        self._place(address, given[found[2]], vm, tree)

    def _place(self, address: IPv4Interface | IPv6Interface, nic: Plain, vm: Vm, tree: Tree) -> None:
        """An address of a NIC; the first one of a network says what its subnet is."""
        network = next(each for each in self._sheet.networks if each.name == nic["network"])
        inside = next((each for each in network.cidrs if address.ip in each), None)
        if inside is not None and inside != address.network:
            problem = f"{address} lies in {inside}, which is another's subnet on {network.name}"
            tree.fault(problem, "give both ends of a link the same prefix length")
            return
        if inside is None:
            network.subnets.append({"cidr": str(address.network)})
        nic.setdefault("addresses", []).append(str(address))


def _keys(tree: Tree | None) -> dict[str, Tree]:
    return {} if tree is None else {key: value for key, value in tree.entries() if not value.is_nothing}


def _names(given: Mapping[str, Plain]) -> dict[str, str]:
    """Names that the language has for interfaces: `eth1` stays, `e1-1` gets another."""
    kept = {name for name in given if re.fullmatch(r"[a-z][a-z0-9]{0,14}", name)}
    free = (f"eth{number}" for number in range(1, len(given) + len(kept) + 2) if f"eth{number}" not in kept)
    return {name: name if name in kept else next(free) for name in given}
