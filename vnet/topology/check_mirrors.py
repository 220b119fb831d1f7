"""Checks of mirrors and of the NICs that only listen: who is copied exists, and copies go where they may."""

from __future__ import annotations

from collections.abc import Iterator

from vnet.topology import language as lang
from vnet.topology.draft import Draft, DraftNic, carried, replicas
from vnet.topology.inventory import replica_names
from vnet.topology.model import MirrorNetwork, MirrorNic, MirrorSource, MirrorUplink, ToFile
from vnet.topology.reading import Reading, quoted, suggestion
from vnet.topology.shape import Entry, Read


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of the mirrors to `reading`."""
    for nics in draft.nics.values():
        for nic in nics:
            _check_listener(nic, reading)
    files: dict[str, str] = {}
    for name, mirror in draft.mirrors.items():
        _check_source(mirror.value, draft, reading)
        _check_target(mirror.value, draft, reading)
        _check_file(name, mirror.value, files, reading)


def _check_listener(nic: DraftNic, reading: Reading) -> None:
    """A NIC that only listens is in no network."""
    if not nic.is_mirror_only:
        return
    given = {
        "network": nic.network is not None,
        "addresses": bool(nic.addresses),
        "promiscuous": nic.is_promiscuous,
        "profile": nic.profile is not None,
        "dhcp": nic.asks is not None and nic.asks.value,
        "rate": nic.rate is not None,
        "dscp": nic.dscp is not None,
        "impair": nic.impair is not None,
    }
    for key in (key for key, is_given in given.items() if is_given):
        problem = f'a NIC with "mirror_only" gets copies and nothing else: it has no "{key}"'
        reading.fault(nic.at, nic.path, problem, f'leave "{key}" out')


def _check_source(mirror: Entry, draft: Draft, reading: Reading) -> None:
    source = mirror.get(lang.MIRROR_SOURCE)
    if source is None:
        return
    if isinstance(source.value, MirrorNetwork):
        name = source.value.name
        if name not in draft.networks:
            problem = f"there is no network {quoted(name)}"
            reading.fault(source.at, source.path, problem, suggestion(name, draft.networks))
    elif isinstance(source.value, MirrorUplink):
        _check_uplink(source, source.value.name, draft, reading)
    elif (nic := _nic(source, source.value, draft, reading)) and nic.is_mirror_only:
        reading.fault(
            source.at, source.path, f'{quoted(_text(source.value))} is "mirror_only": it sends nothing'
        )


def _check_uplink(source: Read[MirrorSource], name: str, draft: Draft, reading: Reading) -> None:
    cables = [uplink for uplink, networks in carried(draft).items() if networks]
    if name not in draft.uplinks:
        problem = f"there is no uplink {quoted(name)}"
        reading.fault(source.at, source.path, problem, suggestion(name, cables))
    elif name not in cables:
        problem = f"the uplink {quoted(name)} is a router's, and no port of the switch"
        reading.fault(source.at, source.path, problem, "mirror the router's networks")


def _check_target(mirror: Entry, draft: Draft, reading: Reading) -> None:
    target = mirror.get(lang.MIRROR_TO)
    if target is None or not isinstance(target.value, MirrorNic):
        _check_snaplen(target is not None and isinstance(target.value, ToFile), mirror, reading)
        return
    _check_snaplen(False, mirror, reading)
    nic = _nic(target, target.value, draft, reading)
    if nic is not None and not nic.is_mirror_only:
        problem = f"{quoted(_text(target.value))} is an ordinary NIC: copies would mix with what it is sent"
        reading.fault(target.at, target.path, problem, "write {mirror_only: true} at the interface")
    spec = draft.vms.get(target.value.vm)
    if nic is not None and spec is not None and replicas(spec.value) is not None:
        problem = f"{quoted(target.value.vm)} has replicas"
        reading.fault(target.at, target.path, problem, f"name one of them: {target.value.vm}-1")


def _check_snaplen(is_file: bool, mirror: Entry, reading: Reading) -> None:
    snaplen, target = mirror.get(lang.MIRROR_SNAPLEN), mirror.get(lang.MIRROR_TO)
    if snaplen is not None and target is not None and not is_file:
        problem = '"snaplen" cuts what goes into a file; other copies are whole packets'
        reading.fault(snaplen.at, snaplen.path, problem, 'leave "snaplen" out')


def _check_file(name: str, mirror: Entry, files: dict[str, str], reading: Reading) -> None:
    target = mirror.get(lang.MIRROR_TO)
    if target is None or not isinstance(target.value, ToFile):
        return
    owner = files.setdefault(target.value.name, name)
    if owner != name:
        problem = f"{quoted(target.value.name)} is the file of mirror {quoted(owner)} already"
        reading.fault(target.at, target.path, problem)


def _nic(at: Read[object], wanted: MirrorNic, draft: Draft, reading: Reading) -> DraftNic | None:
    """The NIC that is meant, or a fault."""
    known = dict(_vms(draft))
    if wanted.vm not in known:
        problem = f"there is no VM {quoted(wanted.vm)}"
        reading.fault(at.at, at.path, problem, suggestion(wanted.vm, known))
        return None
    nics = {nic.name: nic for nic in draft.nics[known[wanted.vm]]}
    if wanted.interface not in nics:
        problem = f"{quoted(wanted.vm)} has no interface {quoted(wanted.interface)}"
        reading.fault(at.at, at.path, problem, f"it has {', '.join(nics) or 'none'}")
        return None
    return nics[wanted.interface]


def _vms(draft: Draft) -> Iterator[tuple[str, str]]:
    """Every name of a VM, declared or of a replica, with the one that it is declared by."""
    for name, vm in draft.vms.items():
        yield name, name
        yield from ((each, name) for each in replica_names(name, replicas(vm.value)))


def _text(nic: MirrorNic) -> str:
    return f"{nic.vm}:{nic.interface}"
