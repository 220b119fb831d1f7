"""Networks of a Compose file, and who is plugged into them.

Source: https://github.com/compose-spec/compose-spec/blob/main/06-networks.md
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from vnet.topology.foreign.sheet import Network, Plain, Sheet, Vm
from vnet.topology.foreign.tree import Tree

DEFAULT = "default"
"""Where services are that name none."""


class Networks:
    """The networks of one file; they go to `sheet`."""

    def __init__(self, tree: Tree, sheet: Sheet) -> None:
        self._tree = tree
        self._sheet = sheet

    @property
    def leading_out(self) -> frozenset[str]:
        """The names here of those that are not internal."""
        return frozenset(each.name for each in map(self._sheet.network, self._known()) if each.way_out)

    def _known(self) -> frozenset[str]:
        """The names in the file."""
        declared = self._tree.get("networks")
        return frozenset({DEFAULT, *(name for name, _ in declared.entries())} if declared else {DEFAULT})

    def declare(self) -> None:
        """All that the file has, and the one that it has without saying so."""
        declared = self._tree.get("networks")
        for name, tree in declared.entries() if declared else ():
            self._network(name, tree)
        if declared is None or declared.get(DEFAULT) is None:
            network = self._sheet.network(DEFAULT)
            network.way_out, network.extra = True, {"dns": True}

    def _network(self, name: str, tree: Tree) -> None:
        network = self._sheet.network(name)
        internal = tree.get("internal")
        network.extra = {"dns": True}
        network.way_out = internal is None or not internal.is_true()
        if not network.way_out:
            network.extra["internal"] = True
        ranges = tree.get("ipam.config")
        for each in ranges.items() if ranges else ():
            self._subnet(network, each)
        driver, external = tree.get("driver"), tree.get("external")
        if driver is not None and driver.text() not in ("bridge", "overlay", DEFAULT):
            self._sheet.note(f"network {name}", driver.at, f"{driver.text()}: declare an uplink that it has")
        if external is not None and (external.is_map or external.text() != "false"):
            self._sheet.note(
                f"network {name}", external.at, "it was made elsewhere; here it is this fabric's"
            )

    def _subnet(self, network: Network, tree: Tree) -> None:
        cidr, gateway = tree.get("subnet"), tree.get("gateway")
        if cidr is None:
            return
        try:
            subnet: Plain = {"cidr": str(ip_network(cidr.text(), strict=False))}
            if gateway is not None:
                subnet["gateway"] = str(ip_address(gateway.text()))
        except ValueError as error:
            cidr.fault(str(error))
            return
        network.subnets.append(subnet)
        for key, value in tree.entries():
            if key not in ("subnet", "gateway"):
                self._sheet.leave_out(
                    f"network {network.name}: {key}", value.at, "addresses are chosen of all"
                )

    def plug(self, name: str, plug: Tree | None, vm: Vm, among: Tree | None) -> Plain:
        """A service's NIC in the network of that name; `among` is where it is named."""
        known = self._known()
        if name not in known and among is not None:
            among.fault(f"there is no network {name!r}", f"known: {', '.join(sorted(known))}")
        network = self._sheet.network(name)
        nic: Plain = {"network": network.name}
        if plug is None or plug.is_nothing:
            return nic
        addresses = [
            self._address(network, found)
            for key in ("ipv4_address", "ipv6_address")
            if (found := plug.get(key))
        ]
        given = [each for each in addresses if each]
        if given and vm.keys.get("replicas", 1) == 1:
            nic["addresses"] = given
        mac = plug.get("mac_address")
        if mac is not None:
            nic["mac"] = mac.text().lower()
        aliases = plug.get("aliases")
        if aliases is not None:
            self._sheet.leave_out(f"{vm.name}.networks.{name}.aliases", aliases.at, "a VM has one name")
        return nic

    def _address(self, network: Network, tree: Tree) -> str:
        try:
            address = ip_address(tree.text())
        except ValueError as error:
            tree.fault(str(error))
            return ""
        subnet = next((each for each in network.cidrs if address in each), None)
        if subnet is None:
            tree.fault(
                f"{address} is in no subnet of the network", "give it one: ipam: {config: [{subnet: ...}]}"
            )
            return ""
        return f"{address}/{subnet.prefixlen}"
