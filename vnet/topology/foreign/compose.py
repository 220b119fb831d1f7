"""A Compose file as a topology: services become micro guests, with their networks and published ports.

What a container is made of (image, command, environment, volumes) is no part of a topology: it is told of,
key by key. Source: https://github.com/compose-spec/compose-spec/blob/main/spec.md
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from vnet.base.errors import InputError
from vnet.topology.foreign.compose_networks import DEFAULT, Networks
from vnet.topology.foreign.ports import published
from vnet.topology.foreign.sheet import NOTHING_LIKE_IT, Plain, Sheet, Vm, memory
from vnet.topology.foreign.tree import Tree, size_bytes, span

_WHY = {
    "environment": "the micro guest has no such environment: write a file with `vnet cp`",
    "env_file": "the micro guest has no such environment: write a file with `vnet cp`",
    "volumes": "give it `disks`, or copy files with `vnet cp`",
    "command": "start it with `vnet exec`, or make an image that does",
    "entrypoint": "start it with `vnet exec`, or make an image that does",
    "build": "make an image of it",
    "secrets": "copy them with `vnet cp`",
    "configs": "copy them with `vnet cp`",
    "privileged": "a VM has its own kernel",
    "cap_add": "a VM has its own kernel",
    "cap_drop": "a VM has its own kernel",
    "devices": "devices of the host are not handed through",
    "extra_hosts": "write them to its /etc/hosts",
    "dns": "`dns: {forwarders: ...}` of its network",
    "links": "services find each other by name on their networks",
    "expose": "who is on a network reaches all ports of the others there",
    "logging": "`vnet logs` prints what it printed",
}
_READ = (
    *(
        "image",
        "networks",
        "network_mode",
        "ports",
        "depends_on",
        "healthcheck",
        "restart",
        "deploy",
        "scale",
    ),
    *("mem_limit", "cpus", "mac_address", "labels", "profiles", "container_name", "hostname", "extends"),
)
_TOP = ("name", "version", "services", "networks")


def imported(file: str, text: str, env: Mapping[str, str], fabric: str = "") -> Plain:
    """The topology of a Compose file. Raises InputError with every fault found.

    Args:
        env: the values of variables; those that are missing are a fault where they are read.
        fabric: what it is to be called, if not as the file says.
    """
    tree = Tree.of(file, text, env)
    document = _Import(tree).document(fabric)
    if tree.reading.faults:
        raise InputError(tree.reading.faults)
    return document


class _Import:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._sheet = Sheet()
        self._names: dict[str, str] = {}
        self._networks = Networks(tree, self._sheet)

    def document(self, fabric: str) -> Plain:
        include, name = self._tree.get("include"), self._tree.get("name")
        if include is not None:
            include.fault("what is included is not read", "give what `docker compose config` prints")
        self._networks.declare()
        services = self._services()
        for service, tree in services.items():
            self._names[service] = self._sheet.vm(service, tree.at).name
        for service, tree in services.items():
            self._service(tree, self._sheet.vms[self._names[service]])
        for key, value in self._tree.entries():
            if key not in (*_TOP, "include") and not key.startswith("x-"):
                self._sheet.leave_out(key, value.at, _WHY.get(key, NOTHING_LIKE_IT))
        return self._sheet.document(fabric or (name.text() if name else "") or "compose")

    def _services(self) -> dict[str, Tree]:
        found = self._tree.get("services")
        if found is None:
            self._tree.fault("there are no services", 'a Compose file has "services"')
            return {}
        services: dict[str, Tree] = {}
        for name, tree in found.entries():
            profiles = tree.get("profiles")
            if profiles is not None and any(True for _ in profiles.items()):
                only = ", ".join(each.text() for each in profiles.items())
                self._sheet.leave_out(name, profiles.at, f"it runs with the profile {only} only")
            else:
                services[name] = tree
        return services

    # -- services

    def _service(self, tree: Tree, vm: Vm) -> None:
        extends, image = tree.get("extends"), tree.get("image")
        if extends is not None:
            extends.fault("what is extended is not read", "give what `docker compose config` prints")
        if image is not None:
            vm.keys["x-image"] = image.text()
        self._sizes(tree, vm)
        labels = tree.get("labels")
        if labels is not None:
            vm.keys["labels"] = labels.pairs()
        self._plugs(tree, vm)
        self._life(tree, vm)
        self._ports(tree, vm)
        for key, value in tree.entries():
            if key not in _READ and not key.startswith("x-"):
                why = _WHY.get(key, NOTHING_LIKE_IT)
                self._sheet.leave_out(f"{vm.name}.{key}", value.at, why)

    def _sizes(self, tree: Tree, vm: Vm) -> None:
        limits = tree.get("deploy.resources.limits")
        memory_limit = tree.get("mem_limit") or (limits and limits.get("memory"))
        cpus = tree.get("cpus") or (limits and limits.get("cpus"))
        size = size_bytes(memory_limit) if memory_limit else None
        if size is not None:
            vm.keys["memory"] = memory(size)
        number = cpus.number() if cpus else None
        if cpus and number:
            vm.keys["cpus"] = ceil(number)
            if number != ceil(number):
                self._sheet.note(f"{vm.name}.cpus", cpus.at, f"{number:g} became {ceil(number)}")
        replicas = tree.get("deploy.replicas") or tree.get("scale")
        count = replicas.whole() if replicas else None
        if count is not None and count != 1:
            vm.keys["replicas"] = count
        for key, value in deploy.entries() if (deploy := tree.get("deploy")) else ():
            if key not in ("resources", "replicas", "restart_policy"):
                self._sheet.leave_out(f"{vm.name}.deploy.{key}", value.at, NOTHING_LIKE_IT)

    def _plugs(self, tree: Tree, vm: Vm) -> None:
        mode, networks, mac = tree.get("network_mode"), tree.get("networks"), tree.get("mac_address")
        if mode is not None and mode.text() == "none":
            return
        if mode is not None and mode.text() not in ("bridge", DEFAULT):
            why = f"{mode.text()}: a VM has its own network; it is in {DEFAULT}"
            self._sheet.leave_out(f"{vm.name}.network_mode", mode.at, why)
        plugs: dict[str, Tree | None] = {DEFAULT: None}
        if networks is not None and mode is None:
            plugs = (
                dict(networks.entries())
                if networks.is_map
                else {each.text(): None for each in networks.items()}
            )
        for index, (name, plug) in enumerate(plugs.items()):
            vm.interfaces[f"eth{index}"] = self._networks.plug(name, plug, vm, networks)
        if mac is not None and plugs:
            vm.interfaces["eth0"].setdefault("mac", mac.text().lower())

    # -- when it begins and ends

    def _life(self, tree: Tree, vm: Vm) -> None:
        restart, policy = tree.get("restart"), tree.get("deploy.restart_policy")
        if restart is not None:
            vm.keys["restart"] = restart.text()
        elif policy is not None:
            vm.keys["restart"] = _restart_of(policy)
        if vm.keys.get("restart") in ("no", "false", ""):
            del vm.keys["restart"]
        check = tree.get("healthcheck")
        if check is not None:
            self._check(check, vm)
        waits = tree.get("depends_on")
        if waits is not None:
            self._waits(waits, vm)

    def _check(self, tree: Tree, vm: Vm) -> None:
        test, disable = tree.get("test"), tree.get("disable")
        words = [each.text() for each in test.items()] if test else []
        if (disable is not None and disable.is_true()) or words[:1] == ["NONE"] or not words:
            return
        check: Plain = {"test": words if test is not None and test.is_list else words[0]}
        for key in ("interval", "timeout", "start_period"):
            value = tree.get(key)
            found = span(value) if value else None
            if found is not None:
                check[key] = found
        retries = tree.get("retries")
        if retries is not None and (count := retries.whole()):
            check["retries"] = count
        vm.keys["healthcheck"] = check
        self._sheet.note(f"{vm.name}.healthcheck", tree.at, "the guest must have what it runs")

    def _waits(self, tree: Tree, vm: Vm) -> None:
        told: Plain = {}
        for name, entry in tree.entries() if tree.is_map else ((each.text(), None) for each in tree.items()):
            condition = entry.get("condition") if entry else None
            word = condition.text() if condition else "service_started"
            if name not in self._names:
                self._sheet.leave_out(f"{vm.name}.depends_on.{name}", tree.at, "it is left out itself")
            elif word == "service_completed_successfully":
                why = "a VM runs until it is stopped: nothing waits for its end"
                self._sheet.leave_out(f"{vm.name}.depends_on.{name}", tree.at, why)
            else:
                told[self._names[name]] = {"condition": self._condition(name, word, vm, tree)}
        if told:
            vm.keys["depends_on"] = told

    def _condition(self, name: str, word: str, vm: Vm, tree: Tree) -> str:
        if word != "service_healthy":
            return "started"
        checked = self._tree.get(f"services.{name}.healthcheck.test")
        if checked is not None:
            return "healthy"
        self._sheet.note(f"{vm.name}.depends_on.{name}", tree.at, f"{name} has no health check here")
        return "started"

    # -- ports

    def _ports(self, tree: Tree, vm: Vm) -> None:
        ports = tree.get("ports")
        if ports is None:
            return
        inside: list[str] = []
        told: list[str] = []
        for each in ports.items():
            for port in published(each):
                if port.why:
                    self._sheet.leave_out(f"{vm.name}.ports {port.guest}", each.at, port.why)
                else:
                    told.append(port.text)
                    inside.append(port.guest)
        if not told:
            return
        if not any(nic["network"] in self._networks.leading_out for nic in vm.interfaces.values()):
            self._sheet.leave_out(f"{vm.name}.ports", ports.at, "none of its networks has a way out")
            return
        vm.keys["ports"] = told
        rule = {"from": ["internet", "host"], "ports": list(dict.fromkeys(inside))}
        name = f"published-{vm.name}"
        self._sheet.policies.append(
            {"name": name, "tier": "baseline", "applied_to": f"vm:{vm.name}", "ingress": [rule]}
        )


def _restart_of(policy: Tree) -> str:
    condition, attempts = policy.get("condition"), policy.get("max_attempts")
    word = condition.text() if condition else "any"
    if word == "none":
        return "no"
    if word == "on-failure":
        count = attempts.whole() if attempts else None
        return f"on-failure:{count}" if count else "on-failure"
    return "always"
