"""Questions about fabrics that are up, answered for the API in plain JSON values."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from vnet.base import paths
from vnet.base.drop import DropReason
from vnet.base.errors import InputError, VnetError
from vnet.base.line import UNIMPAIRED, Impairment, Rate
from vnet.capture.comment import MEANING
from vnet.capture.lines import line
from vnet.drill.run import BY_HOST
from vnet.fabric import probe
from vnet.fabric.asked import Asked, Sandbox
from vnet.fabric.cable import LinkState, Presence
from vnet.fabric.declared import Declared, sentence
from vnet.fabric.events import Kind
from vnet.fabric.known import Known, labels
from vnet.fabric.live import drill as live_drill
from vnet.fabric.live import probe as live_probe
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.journal import kept_logs
from vnet.fabric.live.pictured import pictured
from vnet.fabric.live.registry import Fabric
from vnet.fabric.live.rule_log import RuleLog, between
from vnet.fabric.live.seeing import declared_of, nics_of
from vnet.fabric.live.telling import telling
from vnet.fabric.mirror import mirrors_of
from vnet.fabric.outside import outside_rows
from vnet.fabric.progress import Report
from vnet.hv.spec import ExecResult, GuestState, format_mac
from vnet.openflow import ofctl
from vnet.openflow.conntrack import Direction
from vnet.openflow.flow import Flow
from vnet.policy import pipeline, probes
from vnet.policy.hits import hits
from vnet.policy.listing import ruling
from vnet.policy.verify import ClaimResult, verify
from vnet.switch.taps import TapCount
from vnet.topology.inventory import Nic, UplinkPort, Vm

Json = Mapping[str, Any]

PULSE_S = 2.0
"""How long a VM has to answer before it counts as silent."""
LINES = 500
"""Of the log, sent together."""


HALF_CHANGED = "a change of it was broken off half-way: `vnet up` restarts it as it is to be"


@dataclass(frozen=True, slots=True)
class Service:
    """All questions go through the engine's fabrics."""

    engine: Engine

    # what there is

    async def vms(self, name: str | None) -> list[Json]:
        """The VMs of one fabric, or of all."""
        names = [name] if name else sorted(self.engine.fabrics)
        return [row for each in names for row in await self._vms(each)]

    async def _vms(self, name: str) -> list[Json]:
        fabric = self.engine.fabric(name)
        if fabric.declared is None:
            return []
        there = await fabric.parts.endpoints.presence()
        half_changed = {each.name for each in self.engine.store.guests(name) if each.is_half_changed}
        return [
            {"fabric": name, **_endpoint(vm, there.get(vm.name)), **self.confirmation(name)}
            if vm.endpoint
            else await self._vm(fabric, vm, HALF_CHANGED if vm.name in half_changed else "")
            for vm in fabric.declared.inventory.vms
        ]

    async def _vm(self, fabric: Fabric, vm: Vm, trouble: str) -> Json:
        status = await fabric.parts.guests.status(vm.name)
        runs = status.state is GuestState.RUNNING
        ready = runs and status.agent
        health = fabric.parts.health.states.get(vm.name) if runs else None
        return {
            "fabric": fabric.record.name,
            "vm": vm.name,
            "state": "ready" if ready else status.state.value,
            "health": health.state.value if health else "",
            "detail": status.reason or trouble or (health.text if health else "") or fabric.trouble,
            "image": vm.image,
            "cpus": vm.cpus,
            "memory_bytes": vm.memory_bytes,
            "resident_bytes": status.resident_bytes,
            "pid": status.pid or None,
            "accel": status.accel,
            "warm": status.warm,
            "uptime_s": round(status.uptime_s, 1),
            "addresses": [str(address) for nic in vm.nics for address in nic.addresses],
            "nics": [_nic(nic, status.links_down) for nic in vm.nics],
            "disks": [{"name": disk.name, "location": disk.location} for disk in vm.disks],
            "groups": sorted(vm.groups),
            "at": str(vm.at),
            **self.confirmation(fabric.record.name),
        }

    async def silent(self) -> list[Json]:
        """The VMs that run and whose agent does not answer a question that costs nothing."""
        fabrics = sorted(self.engine.fabrics.items())
        asked = [(name, vm.name) for name, fabric in fabrics for vm in fabric.vms]
        answers = await asyncio.gather(*(self._answers(*each) for each in asked))
        return [
            {"fabric": name, "vm": vm} for (name, vm), does in zip(asked, answers, strict=True) if not does
        ]

    async def _answers(self, name: str, vm: str) -> bool:
        """Whether a VM answers; one that does not run is not asked."""
        guests = self.engine.fabric(name).parts.guests
        status = await guests.status(vm)
        if status.state is not GuestState.RUNNING or not status.has_agent:
            return True
        try:
            async with asyncio.timeout(PULSE_S):
                return (await guests.exec(vm, ("true",), PULSE_S)).exit_code == 0
        except (VnetError, TimeoutError):
            return False

    async def inspect(self, name: str) -> Json:
        """All about a fabric."""
        fabric = self.engine.fabric(name)
        declared = declared_of(fabric)
        return {
            "fabric": name,
            "file": fabric.record.source.file,
            **self.confirmation(fabric.record.name),
            "trouble": fabric.trouble,
            "flows": len(declared.compiled.flows),
            "networks": [
                {"name": net.name, "vlan": net.vlan, "subnets": [str(subnet) for subnet in net.subnets]}
                for net in declared.topology.networks.values()
            ],
            "gateways": outside_rows(declared.state().gateways, await fabric.parts.gateways.silent()),
            "mirrors": _mirrors(declared, fabric.parts.switch.mirror_counts()),
            "uplinks": await self._uplinks(name),
            "vms": await self._vms(name),
        }

    async def uplinks(self, name: str | None) -> list[Json]:
        """The uplinks that are ports, of one fabric or of all."""
        names = [name] if name else sorted(self.engine.fabrics)
        return [row for each in names for row in await self._uplinks(each)]

    async def _uplinks(self, name: str) -> list[Json]:
        fabric = self.engine.fabric(name)
        links = await fabric.parts.cables.links()
        declared = fabric.declared.inventory.uplinks if fabric.declared else ()
        return [_uplink(name, each, links.get(each.uplink, LinkState.MISSING)) for each in declared]

    async def picture(self, name: str) -> Json:
        """What `vnet graph` draws of a fabric."""
        return pictured(self.engine.fabric(name), await self._vms(name))

    async def flows(self, name: str) -> list[Json]:
        """The flows read back from the switch, each with where it comes from."""
        fabric = self.engine.fabric(name)
        explain = explainer(fabric)
        found = sorted(
            await fabric.parts.switch.all_flows(), key=lambda flow: (flow.table, -flow.priority, flow.match)
        )
        return [_flow(flow, explain(flow.cookie)) for flow in found]

    async def rules(self, name: str, vm: str | None) -> list[Json]:
        """The rules in force, those that apply to a VM or all, with what each has decided so far."""
        fabric = self.engine.fabric(name)
        declared = declared_of(fabric)
        counted = hits(declared.topology, await fabric.parts.switch.flow_stats(), datetime.now(UTC))
        shown = await asyncio.to_thread(
            ruling, declared.topology, declared.inventory, declared.compiled, vm, counted
        )
        return list(shown)

    async def trace(self, name: str, asked: Asked) -> Json:
        """What would become of a packet, tried in a copy of the switch.

        Raises: InputError for a question that makes no sense.
        """
        fabric = self.engine.fabric(name)
        declared, record = declared_of(fabric), fabric.record
        names = labels(declared.compiled.identities)
        found = {vm.name: (await fabric.parts.guests.status(vm.name)).state for vm in fabric.vms}
        absent = {vm: state.value for vm, state in found.items() if state is not GuestState.RUNNING}
        given = declared.topology, declared.inventory, record.provenance, record.enforced
        known = Known(*given, *names, absent)
        trace = await asyncio.to_thread(_tracer)
        return await fabric.parts.switch.in_sandbox(partial(trace, asked, known))

    async def drops(self, name: str) -> Json:
        """Lost packets by reason, and the most recent ones in words."""
        fabric = self.engine.fabric(name)
        explain = explainer(fabric)
        counts = await fabric.parts.switch.drop_counts()
        return {
            "counts": [
                {"reason": reason.name, "packets": packets, "meaning": MEANING[reason]}
                for reason, packets in sorted(counts.items(), key=lambda item: -item[1])
            ],
            "recent": [line(record, explain) for record in fabric.parts.switch.watch.recent],
        }

    # confirmation

    def confirm_left_s(self, name: str) -> float | None:
        """The seconds that are left to confirm a fabric's last change, in tenths; None when nothing waits."""
        left_s = self.engine.confirm_left_s(name)
        return None if left_s is None else round(left_s, 1)

    def confirmation(self, name: str) -> Json:
        """What is wanted and in force, and whether that waits to be confirmed."""
        record = self.engine.fabric(name).record
        generations = {"generation": record.generation, "enforced": record.enforced}
        return {"fabric": name, **generations, "confirm_left_s": self.confirm_left_s(name)}

    def unconfirmed(self) -> list[str]:
        """The fabrics whose last change waits to be confirmed."""
        return [name for name in sorted(self.engine.fabrics) if self.confirm_left_s(name) is not None]

    # claims

    async def verify(self, name: str, probing: bool, report: Report) -> list[Json]:
        """Every claim on the flows that are in force; with `probing` also tried by real packets."""
        fabric = self.engine.fabric(name)
        declared = declared_of(fabric)
        steps = 3 if probing else 2
        with telling(report, 1, "read the flows from the switch", steps) as remark:
            flows = await fabric.parts.switch.all_flows()
            remark.text = f"{len(flows)} flows"
        with telling(report, 2, "prove the claims on them", steps) as remark:
            results = await asyncio.to_thread(verify, declared.topology, declared.inventory, flows)
            remark.text = f"{sum(result.holds for result in results)} of {len(results)} hold"
        wanted = probes.probes(declared.topology, declared.inventory) if probing else ()
        through = await self._probe(fabric, wanted, report) if wanted else {}
        ends = declared.topology, declared.inventory
        claims: list[Json] = [
            {
                **_claim(result, [each for each in wanted if each.claim == result.claim], through),
                "untried": probes.untried(*ends, result.claim) if probing else "",
            }
            for result in results
        ]
        self._tell_failed(name, [claim["claim"] for claim in claims if not claim["passed"]])
        return claims

    def _tell_failed(self, name: str, claims: list[str]) -> None:
        if claims:
            text = f"{len(claims)} claims of {name} do not hold: {'; '.join(claims)}"
            self.engine.events.tell(Kind.VERIFY_FAILED, text, name, fields={"claims": claims})

    async def _probe(
        self, fabric: Fabric, wanted: tuple[probes.Probe, ...], report: Report
    ) -> Mapping[probe.Attempt, bool]:
        tries = probe.attempts(wanted)
        what = f"try {len(tries)} connections from inside the guests"
        with telling(report, 3, what, 3) as remark:
            promised = {probe.attempt(each) for each in wanted if each.allowed}
            through = await live_probe.run(tries, promised, fabric.parts.guests)
            remark.text = f"{sum(through.values())} got through"
        return through

    async def drill(self, name: str, wanted: str, only: tuple[str, ...], report: Report) -> list[Json]:
        """What becomes of attacks by a VM or one of its NICs, under the flows that are in force.

        Raises: InputError for an unknown NIC, and if none of them has a neighbour.
        """
        async with self.engine.alone(name):
            fabric = self.engine.fabric(name)
            declared = declared_of(fabric)
            nics = nics_of(declared, (wanted,))
            near = [nic for nic in nics if _has_neighbour(nic, declared)]
            if not near:
                raise InputError(
                    f"{wanted} has no neighbour: nothing it sends could arrive, so a drill proves nothing"
                )
            order = live_drill.Order(declared, await fabric.parts.switch.flows(), near, only)
            drilled = await live_drill.run(order, report)
        explain = explainer(fabric)
        return [_drilled(each, explain) for each in drilled]

    # the log of the rules

    def policy_log(
        self, name: str, since_ns: int | None, until_ns: int | None, follow: bool
    ) -> Callable[[asyncio.Queue[bytes | None]], Awaitable[None]]:
        """The log ready to be read: what is kept of a time, then, with `follow`, what comes."""
        log = self._log(name)

        async def produce(blocks: asyncio.Queue[bytes | None]) -> None:
            with log.followed() as follower:
                kept = between(log.snapshot(), since_ns, until_ns)
                while lines := await asyncio.to_thread(lambda: tuple(islice(kept, LINES))):
                    await blocks.put(_block(lines))
                while follow and (new := await follower.next()) is not None:
                    await blocks.put(_block(new))

        return produce

    def _log(self, name: str) -> RuleLog:
        """That of a fabric that is up, or what is left of one that was."""
        if name not in self.engine.fabrics and name in kept_logs():
            ended = RuleLog(paths.log_dir(name))
            ended.close(None)
            return ended
        return self.engine.fabric(name).parts.log

    # guests

    async def exec(
        self, name: str, vm: str, argv: tuple[str, ...], timeout_s: float, stdin: bytes = b""
    ) -> ExecResult:
        """Run a command in a VM, with `stdin` as its whole standard input."""
        guest = self.engine.guest(name, vm)
        if not argv:
            raise InputError("which command? write it after the VM's name")
        return await self.engine.fabric(name).parts.guests.exec(guest.name, argv, timeout_s, stdin)

    async def console(self, name: str, vm: str) -> Path:
        """Where a VM's console is."""
        guest = self.engine.guest(name, vm)
        return await self.engine.fabric(name).parts.guests.console(guest.name)


def _tracer() -> Callable[[Asked, Known, Sandbox, tuple[Direction, ...]], Json]:
    from vnet.fabric.trace import trace  # imports Scapy, and not every daemon is asked

    return trace


def _block(lines: tuple[str, ...]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def explainer(fabric: Fabric) -> Callable[[int], str]:
    """Cookie to sentence, by the provenance of the generation in the store."""
    provenance = fabric.record.provenance
    return lambda cookie: sentence(provenance[cookie]) if cookie in provenance else ""


def failed_claims(declared: Declared) -> tuple[str, ...]:
    """The topology's claims that its own flows do not meet, each with a counterexample."""
    compiled = declared.compiled
    results = verify(declared.topology, declared.inventory, compiled.flows, compiled.provenance)
    return tuple(str(result) for result in results if not result.holds)


def _mirrors(declared: Declared, counts: Mapping[str, TapCount]) -> list[Json]:
    """The mirrors with what became of the packets they were asked about."""
    found = sorted(mirrors_of(declared.topology, declared.inventory), key=lambda each: each.name)
    return [
        {"name": each.name, "copies": str(each), **asdict(counts.get(each.name, TapCount()))}
        for each in found
    ]


def _uplink(fabric: str, uplink: UplinkPort, link: LinkState) -> Json:
    return {
        "fabric": fabric,
        "uplink": uplink.uplink,
        "interface": uplink.interface,
        "link": link.value,
        "mode": "trunk" if uplink.is_tagged else "access",
        "networks": dict(uplink.networks),
        "port": uplink.port,
        "at": str(uplink.at),
    }


def _endpoint(vm: Vm, there: Presence | None) -> Json:
    """The row of an endpoint among those of VMs: where it is stands for an image, and it has no process."""
    assert vm.endpoint is not None, "it is one"
    nothing = {"image": str(vm.endpoint), "cpus": 0, "memory_bytes": 0, "resident_bytes": 0, "uptime_s": 0.0}
    return {
        "vm": vm.name,
        "state": (there or Presence.ABSENT).value,
        "health": "",
        "detail": "",
        **nothing,
        "pid": None,
        "accel": "",
        "warm": False,
        "addresses": [str(address) for nic in vm.nics for address in nic.addresses],
        "nics": [_nic(nic, ()) for nic in vm.nics],
        "disks": [],
        "groups": sorted(vm.groups),
        "at": str(vm.at),
        "endpoint": vm.endpoint.kind.value,
    }


def _nic(nic: Nic, links_down: Collection[str]) -> Json:
    return {
        "name": nic.name,
        "network": nic.network,
        "vlan": nic.vlan,
        "port": nic.port,
        "mac": format_mac(nic.mac),
        "addresses": [str(address) for address in nic.addresses],
        "link": "down" if nic.interface in links_down else "up",
        "profile": nic.profile.name,
        "rate": {"in": _rate(nic.line.inward), "out": _rate(nic.line.outward)},
        "impair": _impairment(nic.line.impairment),
        "dscp": nic.dscp,
    }


def _rate(rate: Rate) -> Json | None:
    return {"bps": rate.bps, "burst_bytes": rate.burst_bytes} if rate.bps else None


def _impairment(impairment: Impairment) -> Json | None:
    return asdict(impairment) if impairment != UNIMPAIRED else None


def _flow(flow: Flow, origin: str) -> Json:
    return {
        "table": pipeline.name_of(flow.table) or str(flow.table),
        "priority": flow.priority,
        "match": ofctl.match_text(flow.match) or "any",
        "actions": ofctl.instructions_text(flow.instructions),
        "from": origin,
        "cookie": f"{flow.cookie:#018x}",
        "ovs": ofctl.text(flow),
    }


def _claim(result: ClaimResult, wanted: list[probes.Probe], through: Mapping[probe.Attempt, bool]) -> Json:
    tried = [_probe_result(each, through[probe.attempt(each)]) for each in wanted]
    return {
        "claim": result.claim.text,
        "at": str(result.claim.at),
        "holds": result.holds,
        "why": str(result.counterexample) if result.counterexample else "",
        "checked": result.checked,
        "probes": tried,
        "passed": result.holds and all(each["passed"] for each in tried),
    }


def _probe_result(wanted: probes.Probe, got: bool) -> Json:
    words = {True: "passes", False: "blocked"}
    return {
        "what": str(probe.attempt(wanted)),
        "expected": words[wanted.allowed],
        "got": words[got],
        "passed": wanted.allowed == got,
    }


def _has_neighbour(nic: Nic, declared: Declared) -> bool:
    others = (other for other in declared.inventory.nics if other.name != nic.name)
    return any((other.network, other.vlan) == (nic.network, nic.vlan) for other in others)


def _drilled(one: live_drill.Drilled, explain: Callable[[int], str]) -> Json:
    outcome = one.outcome
    return {
        "nic": one.nic.name,
        "group": outcome.group,
        "attack": outcome.what,
        "source": outcome.source,
        "sent": outcome.sent,
        "outcome": outcome.result.value,
        "passed": outcome.passed,
        "arrived": dict(outcome.arrived),
        "reasons": dict(outcome.reasons),
        "by": outcome.note or explain(outcome.cookie) or _meaning(outcome.reasons),
    }


def _meaning(reasons: Mapping[str, int]) -> str:
    """Of the most frequent reason, where no flow explains it."""
    often = next(iter(reasons), "")
    if often == BY_HOST:
        return "the kernel takes no such frame from a NIC"
    return MEANING[DropReason[often]] if often else ""
