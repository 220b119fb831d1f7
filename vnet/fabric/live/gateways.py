"""The `Gateways` of this host: for each router with an uplink a namespace that forwards.

What was put is kept in a file of each, so the next daemon knows what there should be, and what of the host
was changed for it. The rules are compared with what the kernel said of them when they had been put.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.fabric.live import (
    conflicts,
    gateway_links,
    gateway_side,
    gateway_tracked,
    host,
    netns,
    nft,
    settings,
    targets,
)
from vnet.fabric.live.conflicts import Other
from vnet.fabric.live.gateway_links import Names
from vnet.fabric.live.gateway_record import Kept, Records
from vnet.fabric.live.nft import Digests
from vnet.fabric.state import GATEWAY, Gateway, gateway_remnant, ifname
from vnet.services import gateway as words
from vnet.services import gateway_rules
from vnet.services.gateway import FABRIC, HOST, Address, Answer, Dead, Forwarding
from vnet.services.nft import Table
from vnet.switch.live.netlink import netlink_to
from vnet.switch.live.netns import NETNS_DIR, inside


class HostGateways:
    """See `vnet.fabric.live.parts.Gateways`. `netns` is the fabric's namespace."""

    def __init__(self, fabric: str, netns: str) -> None:
        self._netns = netns
        self._records = Records(paths.gateway_dir(fabric))
        self._lock = asyncio.Lock()
        self._digests = Digests()

    async def observed(self) -> frozenset[Gateway]:
        """Those that are as they were put; of all else that is there a `gateway_remnant`."""
        return await asyncio.to_thread(self._observed)

    async def routers(self) -> tuple[str, ...]:
        """The routers of whose gateways anything is there."""
        return await asyncio.to_thread(self._routers)

    async def conflicts(self, wanted: frozenset[Gateway]) -> tuple[str, ...]:
        """What of this host stands in the way of gateways that are to be put."""
        return await asyncio.to_thread(self._conflicts, wanted)

    async def put(self, gateway: Gateway) -> str:
        """Forward so for its router."""
        async with self._lock:
            return await netns.finished(None, self._put, gateway)

    async def remove(self, router: str) -> None:
        """Remove all that was made for it."""
        async with self._lock:
            await netns.finished(None, self._remove, router)

    async def mend(self) -> tuple[Gateway, ...]:
        """Make again what was damaged."""
        async with self._lock:
            return await netns.finished(None, self._mend)

    async def check(self) -> tuple[Answer, ...]:
        """Try the targets of published ports; those that do not answer get nothing."""
        tried = await asyncio.to_thread(self._to_try)
        found = await asyncio.gather(*(targets.dead(*question) for question in tried.values()))
        dead = dict(zip(tried, found, strict=True))
        async with self._lock:
            return await netns.finished(None, self._spare, dead)

    async def silent(self) -> tuple[Answer, ...]:
        """The targets that get nothing because they did not answer."""
        return await asyncio.to_thread(self._silent)

    # blocking: what is there

    def _names(self, router: str) -> Names:
        own = f"{self._netns}.{GATEWAY}{router}"
        return Names(ifname(f"{GATEWAY}{router}"), self._netns, own, ifname(self._table(router)))

    def _table(self, router: str) -> str:
        """The host's, and its interface: no fabric's name has a dot."""
        return f"{self._netns}.{router}"

    def _routers(self) -> tuple[str, ...]:
        prefix = f"{self._netns}.{GATEWAY}"
        there = {path.name.removeprefix(prefix) for path in NETNS_DIR.glob(f"{prefix}*")}
        return tuple(sorted({*self._records.routers(), *there}))

    def _observed(self) -> frozenset[Gateway]:
        return frozenset(self._whole(router) or gateway_remnant(router) for router in self._routers())

    def _whole(self, router: str) -> Gateway | None:
        """A gateway with all that belongs to it."""
        kept = self._records.load(router)
        if kept is None or not self._is_whole(kept):
            return None
        return kept.gateway

    def _is_whole(self, kept: Kept) -> bool:
        gateway, names = kept.gateway, self._names(kept.gateway.router)
        forwarding = gateway.forwarding
        if not gateway_links.is_whole(names, gateway.mac, forwarding.device):
            return False
        with inside(names.own), netlink_to("read the gateway") as netlink:
            found = gateway_side.read(netlink, (FABRIC, forwarding.device))
            if gateway_side.lacks(words.gateway_side(forwarding), found):
                return False
            if self._digests.of(gateway_rules.TABLE) != kept.own_rules:
                return False
        return not forwarding.host or self._is_host_whole(kept, names)

    def _is_host_whole(self, kept: Kept, names: Names) -> bool:
        with netlink_to("read the host's side of a gateway") as netlink:
            found = gateway_side.read(netlink, (names.host,))
        if gateway_side.lacks(words.host_side(kept.gateway.forwarding, names.host), found):
            return False
        if self._digests.of(self._table(kept.gateway.router)) != kept.host_rules:
            return False
        if not self._forwards():
            return False
        return not kept.proxies or set(kept.proxies) <= gateway_side.proxies()

    def _forwards(self) -> bool:
        if settings.get(_FORWARD) != "1":
            return False
        return not settings.is_borrowed(_FORWARD) or bool(self._digests.of(gateway_rules.FORWARD_TABLE))

    def _conflicts(self, wanted: frozenset[Gateway]) -> tuple[str, ...]:
        others = tuple(Other(fabric, kept.gateway.forwarding) for fabric, kept in self._records.elsewhere())
        found = (
            text
            for gateway in sorted(wanted, key=lambda each: each.router)
            for text in conflicts.of(gateway, self._names(gateway.router), others)
        )
        return tuple(dict.fromkeys(found))

    # blocking: making and removing

    def _put(self, gateway: Gateway) -> str:
        router, forwarding = gateway.router, gateway.forwarding
        names, was = self._names(router), self._records.load(router)
        kept = Kept(gateway) if was is None else replace(was, gateway=gateway, dead=_still(was.dead, gateway))
        if was is not None and was.gateway.forwarding.device != forwarding.device:
            self._let_go(was)
            kept = replace(kept, moved=None, proxies=())
        self._records.save(kept)
        kept = self._make_links(kept, names)
        with inside(names.own):
            with netlink_to(f"set up the gateway of router {router}") as netlink:
                side = words.gateway_side(forwarding)
                gateway_side.bring(netlink, side, (FABRIC, forwarding.device))
            kept = replace(kept, own_rules=_rules(gateway_rules.gateway_table(forwarding, kept.dead)))
            had = frozenset() if was is None else was.gateway.forwarding.targets
            gateway_tracked.forget(had - forwarding.targets)
        if forwarding.host:
            kept = self._put_on_host(kept, names)
        self._records.save(kept)
        return _remark(forwarding)

    def _make_links(self, kept: Kept, names: Names) -> Kept:
        device = kept.gateway.forwarding.device
        gateway_links.make(names, kept.gateway.mac, device == HOST)
        if device == HOST:
            return kept
        if not gateway_links.has(names, device):
            boot = host.boot_id()
            if kept.moved is None or kept.moved.boot != boot:
                kept = replace(kept, moved=gateway_links.seen(device, boot))
            if kept.moved is None:
                raise HostError(f"this host has no interface {device}, which the uplink names")
            self._records.save(kept)
            gateway_links.take(names, device)
        gateway_links.settle(names, device)
        return kept

    def _put_on_host(self, kept: Kept, names: Names) -> Kept:
        forwarding, table = kept.gateway.forwarding, self._table(kept.gateway.router)
        _forward()
        proxies = conflicts.proxies(forwarding, names.host)
        with netlink_to("set up the host's side of a gateway") as netlink:
            gateway_side.bring(netlink, words.host_side(forwarding, names.host), (names.host,))
            for each in proxies:
                _answer_for(each)
                gateway_side.answer(netlink, each)
            for each in set(kept.proxies) - set(proxies):
                gateway_side.answer_no_more(netlink, each)
        rules = _rules(gateway_rules.host_table(table, names.host, forwarding))
        return replace(kept, proxies=proxies, host_rules=rules)

    def _remove(self, router: str) -> None:
        kept = self._records.load(router)
        if kept is not None:
            self._let_go(kept)
        names = self._names(router)
        if nft.find_program():
            nft.remove(self._table(router))
        gateway_links.remove(names)
        if not gateway_links.is_any_left():
            _forward_no_more()
        self._records.remove(router)

    def _let_go(self, kept: Kept) -> None:
        """Undo what was done to the host for a gateway: it is to lead elsewhere, or nowhere."""
        router, device = kept.gateway.router, kept.gateway.forwarding.device
        names = self._names(router)
        if device == HOST:
            with netlink_to("remove the host's side of a gateway") as netlink:
                for each in kept.proxies:
                    gateway_side.answer_no_more(netlink, each)
            nft.remove(self._table(router))
            gateway_links.remove_link(names.host)
        elif device:
            gateway_links.give_back(names, device, kept.moved)

    def _mend(self) -> tuple[Gateway, ...]:
        """One that cannot be made again keeps no other from it."""
        mended: list[Gateway] = []
        failures: list[str] = []
        for kept in self._damaged() if netns.exists(self._netns) else ():
            try:
                self._put(kept.gateway)
                mended.append(kept.gateway)
            except HostError as error:
                failures.append(f"the gateway of router {kept.gateway.router} cannot be made again: {error}")
        if failures and not mended:
            raise HostError("; ".join(failures))
        return tuple(mended)

    def _damaged(self) -> Iterator[Kept]:
        for router in self._records.routers():
            kept = self._records.load(router)
            if kept is not None and not self._is_whole(kept):
                yield kept

    # blocking: published ports

    def _to_try(self) -> dict[str, tuple[str, Forwarding]]:
        """The gateways with targets to be tried: their namespaces and what they do."""
        found = {}
        for router in self._records.routers():
            kept, names = self._records.load(router), self._names(router)
            if kept and kept.gateway.forwarding.is_checked and netns.exists(names.own):
                found[router] = names.own, kept.gateway.forwarding
        return found

    def _silent(self) -> tuple[Answer, ...]:
        kept = filter(None, map(self._records.load, self._records.routers()))
        return tuple(
            Answer(each.gateway.router, *target, is_there=False)
            for each in kept
            for target in sorted(each.dead)
        )

    def _spare(self, dead: dict[str, Dead]) -> tuple[Answer, ...]:
        return tuple(answer for router, each in dead.items() for answer in self._spared(router, each))

    def _spared(self, router: str, dead: Dead) -> Iterator[Answer]:
        kept, names = self._records.load(router), self._names(router)
        if kept is None or kept.dead == dead or not netns.exists(names.own):
            return
        with inside(names.own):
            rules = _rules(gateway_rules.gateway_table(kept.gateway.forwarding, dead))
        self._records.save(replace(kept, dead=dead, own_rules=rules))
        yield from (Answer(router, *each, is_there=False) for each in sorted(dead - kept.dead))
        yield from (Answer(router, *each, is_there=True) for each in sorted(kept.dead - dead))


def _rules(table: Table) -> str:
    """Put rules, and say how the kernel has them."""
    nft.put(table)
    return nft.digest(table.name)


def _still(dead: Dead, gateway: Gateway) -> Dead:
    """Those of the dead targets that still are targets."""
    doors = gateway.forwarding.doors
    return dead & {(each, door.target_port) for door in doors for each in door.checked}


# ---- forwarding by the host ------------------------------------------------------------------

_FORWARD = "ipv4/ip_forward"


def _forward() -> None:
    """Have the host forward IPv4; if it did not before, only what gateways send and get.

    IPv6 is left as it is: a host that forwards takes no more router advertisements (`accept_ra`).
    """
    if settings.get(_FORWARD) != "1" or settings.is_borrowed(_FORWARD):
        nft.put(gateway_rules.forward_table())
        each = tuple(f"ipv4/conf/{path.name}/forwarding" for path in (settings.ROOT / "ipv4/conf").iterdir())
        settings.borrow({_FORWARD: "1"}, ("ipv4/conf/all/accept_redirects", *each))


def _forward_no_more() -> None:
    settings.give_back()
    if nft.find_program():
        nft.remove(gateway_rules.FORWARD_TABLE)


def _answer_for(proxy: Address) -> None:
    if ip_address(proxy.address).version == 6:
        settings.borrow({f"ipv6/conf/{proxy.device}/proxy_ndp": "1"})


def _remark(forwarding: Forwarding) -> str:
    """What does not work, and why."""
    if forwarding.host and 6 in forwarding.versions and settings.get("ipv6/conf/all/forwarding") == "0":
        return (
            "this host forwards no IPv6, so none leaves by it; `sysctl -w net.ipv6.conf.all.forwarding=1`"
            " lets it (interfaces with router advertisements need accept_ra=2 then)"
        )
    return ""
