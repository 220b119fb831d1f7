"""Commands about a whole fabric: validate, config, down, ps, inspect, serve, version."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from vnet import __version__
from vnet.base.errors import Exit, PeerError, UsageError
from vnet.base.line import bits
from vnet.base.logs import LogFormat
from vnet.cli import files
from vnet.cli.client import Client, data, path
from vnet.cli.location_commands import refuse_unknown, tell_missing
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, Row, age, amount, document, emit, mib, rows, tell

_PS = (
    Column("FABRIC", lambda row: row["fabric"]),
    Column("VM", lambda row: row["vm"]),
    Column("STATE", lambda row: _state(row)),
    Column("UP", lambda row: age(row["uptime_s"]) if row["uptime_s"] else "-"),
    Column("GENERATION", lambda row: _generation(row)),
    Column("ADDRESSES", lambda row: ", ".join(row["addresses"]) or "-"),
    Column("IMAGE", lambda row: row["image"], wide=True),
    Column("CPUS", lambda row: str(row["cpus"]), wide=True),
    Column("MEMORY", lambda row: mib(row["memory_bytes"]), wide=True),
    Column("CPU%", lambda row: _percent(row, "cpu_percent"), wide=True),
    Column("READY%", lambda row: _percent(row, "ready_percent"), wide=True),
    Column("RESIDENT", lambda row: mib(row["resident_bytes"]), wide=True),
    Column("USED", lambda row: _used(row), wide=True),
    Column("BALLOON", lambda row: _mib(row, "ballooned_bytes"), wide=True),
    Column("SWAP", lambda row: _mib(row, "swapped_bytes"), wide=True),
    Column("DISK R/s", lambda row: _number(row, "disk_reads_ps"), wide=True),
    Column("W/s", lambda row: _number(row, "disk_writes_ps"), wide=True),
    Column("P95 ms", lambda row: _number(row, "disk_p95_ms"), wide=True),
    Column("TX B/s", lambda row: _number(row, "sent_bytes_ps"), wide=True),
    Column("RX B/s", lambda row: _number(row, "received_bytes_ps"), wide=True),
    Column("LOST/s", lambda row: _number(row, "drops_pps"), wide=True),
    Column("RATE", lambda row: _rates(row), wide=True),
    Column("PID", lambda row: str(row["pid"] or "-"), wide=True),
    Column("DETAIL", lambda row: row["detail"] or "-", wide=True),
)


_UPLINKS = (
    Column("FABRIC", lambda row: row["fabric"]),
    Column("UPLINK", lambda row: row["uplink"]),
    Column("LINK", lambda row: row["link"]),
    Column("INTERFACE", lambda row: row["interface"]),
    Column("MODE", lambda row: row["mode"]),
    Column("NETWORKS", lambda row: ", ".join(f"{name} ({vlan})" for name, vlan in row["networks"].items())),
    Column("PORT", lambda row: str(row["port"]), wide=True),
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app)(validate)
    command(app)(config)
    command(app, "destroy")(down)
    command(app)(ps)
    command(app)(inspect)
    command(app)(serve)
    command(app)(version)


def validate(settings: Settings) -> None:
    """Check a topology file; tells every fault at once."""
    topology, inventory = _loaded(settings)
    if any(mirror.filter for mirror in topology.mirrors):
        from vnet.fabric.live.filters import check_filters

        check_filters(topology)
    refuse_unknown(settings.client(), inventory.vms)
    found = {
        "vms": len(inventory.vms),
        "networks": len(topology.networks),
        "policies": len(topology.policies),
    }
    if settings.output in (Format.JSON, Format.YAML):
        document({"name": topology.name, "valid": True, **found}, settings.output)
    else:
        emit(f"{topology.name}: valid: " + ", ".join(f"{count} {what}" for what, count in found.items()))


def config(settings: Settings) -> None:
    """Print the topology with everything spelled out.

    Defaults merged, replicas one by one, addresses and MACs as they are given out.
    """
    from vnet.cli.expanded import expanded

    form = Format.JSON if settings.output is Format.JSON else Format.YAML
    document(expanded(*_loaded(settings)), form)


def _loaded(settings: Settings) -> tuple[Any, Any]:
    from vnet.topology.inventory import expand
    from vnet.topology.load import load_text

    given = files.read(settings.file)
    topology = load_text(given.text, given.file, dict(os.environ), given.included)
    return topology, expand(topology, {})


def down(
    settings: Settings,
    disks: Annotated[
        bool, typer.Option("--disks", help="Also the disks of its VMs, with all that is on them.")
    ] = False,
) -> None:
    """Remove the fabric and all that was made for it.

    The disks of its VMs are kept, with what is on them, for the next `up`. With --disks they are removed,
    also those of a fabric that is down already.
    """
    from vnet.cli import daemon

    name = settings.fabric
    if not disks and not settings.client().alive() and not daemon.has_fabrics():
        tell(f"{name if name != '-' else 'no fabric'}: not up, nothing to remove")
        return
    where = path("fabrics", name) + ("?disks=1" if disks else "")
    client = settings.daemon()
    if disks:
        tell_missing(client)
    outcome = data(client.run("DELETE", where, None, settings.report))
    if outcome["daemon_ends"]:
        daemon.wait_for_end(outcome["pid"])
    if settings.output in (Format.JSON, Format.YAML):
        document(outcome, settings.output)
    elif not settings.quiet:
        not_up = "not up" if disks else "not up, nothing to remove"
        tell(f"{outcome['fabric']}: {'down' if outcome['actions'] else not_up}")
        (_tell_removed if disks else _tell_kept)(outcome)


def _tell_kept(outcome: Row) -> None:
    """What is left of a fabric that is down."""
    if outcome["disks_kept"]:
        tell(f"its VMs' disks are kept ({outcome['disks_kept']}): `vnet disk ls`, `vnet down --disks`")
    if outcome["snapshots_kept"]:
        tell(f"so are its VMs' snapshots ({outcome['snapshots_kept']}): `vnet snapshot ls`")


def _tell_removed(outcome: Row) -> None:
    """What was left of a fabric that is down, and is no more."""
    for what in ("disk", "snapshot"):
        found = outcome[f"{what}s_removed"]
        if found:
            named = ", ".join(f"{row['vm']} {row[what]}" for row in found)
            tell(f"its VMs' {what}s are removed ({len(found)}): {named}")
        elif what == "disk":
            tell("no disks of its VMs were left")


def ps(settings: Settings) -> None:
    """List VMs and uplinks, of all fabrics or of one (-n, -f).

    With -o json VMs alone; `vnet inspect -o json` has the uplinks too.
    """
    found, uplinks = _listed(settings)
    rows(found, _PS, settings.output)
    if uplinks and settings.output in (Format.TABLE, Format.WIDE):
        emit("")
        rows(uplinks, _UPLINKS, settings.output)
    if settings.output is Format.TABLE:
        for trouble in dict.fromkeys(row["detail"] for row in found if row["detail"]):
            tell(f"vnet: {trouble}")
        for text in dict.fromkeys(map(_unconfirmed, filter(_waits, found))):
            tell(f"vnet: {text}")


def _listed(settings: Settings) -> tuple[list[Row], list[Row]]:
    """VMs and uplinks."""
    from vnet.cli import daemon

    client = settings.client()
    if not client.alive():
        if not daemon.has_fabrics():
            return [], []
        daemon.ensure(client)
    wanted = settings.fabric if settings.name or settings.file else None
    return client.get("/v1/vms", fabric=wanted), client.get("/v1/uplinks", fabric=wanted)


def _percent(row: Row, key: str) -> str:
    """None of a VM that is too new, or of a daemon that does not tell it."""
    found = row.get(key)
    return "-" if found is None else f"{found:.0f}"


def _number(row: Row, key: str) -> str:
    """The same in few characters."""
    found = row.get(key)
    return "-" if found is None else amount(found)


def _mib(row: Row, key: str) -> str:
    found = row.get(key)
    return "-" if found is None else mib(found)


def _used(row: Row) -> str:
    """Memory in the guest's own eyes: used, of what it has."""
    total, available = row.get("guest_memory_bytes"), row.get("guest_available_bytes")
    return "-" if total is None or available is None else f"{mib(total - available)}/{mib(total)}"


def _state(row: Row) -> str:
    """Its state, and its health and links unless all is well."""
    health, pulled = row.get("health", ""), [nic for nic in row["nics"] if nic.get("link") == "down"]
    links = [f"{nic['name'].rpartition('.')[2]} down" for nic in pulled]
    return ", ".join([row["state"], *([health] if health not in ("", "healthy") else []), *links])


def _generation(row: Row) -> str:
    """One number when what is wanted is enforced, both when it is not; how long it can be confirmed."""
    left_s = row["confirm_left_s"]
    left = f" ({left_s:.0f}s to confirm)" if left_s else " (not confirmed)" if _waits(row) else ""
    if row["generation"] == row["enforced"]:
        return f"{row['generation']}{left}"
    return f"{row['enforced']}→{row['generation']}{left}"


def _waits(row: Row) -> bool:
    return row["confirm_left_s"] is not None


def _rates(row: Row) -> str:
    """How fast its NICs are that have a rate: `eth0 in 10M out 5M`."""
    told = []
    for nic in row["nics"]:
        ways = [f"{way} {bits(rate['bps'])}" for way, rate in nic["rate"].items() if rate]
        told += [" ".join([nic["name"].rpartition(".")[2], *ways])] if ways else []
    return ", ".join(told) or "-"


def _unconfirmed(row: Row) -> str:
    if not row["confirm_left_s"]:
        generation = f"{row['fabric']}: generation {row['generation']} was not confirmed, and is being undone"
        return f"{generation}; `vnet rollback -n {row['fabric']}` says what is in the way, if something is"
    return f"{row['fabric']}: `vnet confirm -n {row['fabric']}` keeps generation {row['generation']}"


def inspect(
    settings: Settings,
    vm: Annotated[str | None, typer.Argument(help="One VM instead of the whole fabric.")] = None,
) -> None:
    """Tell everything about a fabric or one of its VMs."""
    answer = settings.daemon().get(path("fabrics", settings.fabric))
    if vm is not None:
        found = [each for each in answer["vms"] if each["vm"] == vm]
        if not found:
            known = ", ".join(each["vm"] for each in answer["vms"])
            raise UsageError(f"there is no VM {vm} in fabric {answer['fabric']}; its VMs: {known}")
        answer = found[0]
    document(answer, Format.JSON if settings.output is Format.JSON else Format.YAML)


def _readiness(client: Client) -> Any:
    """What the daemon says of it; one that is older than the question is not ready for it."""
    try:
        return client.get("/v1/ready")
    except PeerError as error:
        why = f"it cannot say whether it is ready ({error}); `vnet serve --stop` ends it"
        return {"ready": False, "fabrics": [], "reasons": [{"fabric": "vnetd", "why": why}]}


def serve(
    settings: Settings,
    stop: Annotated[bool, typer.Option("--stop", help="End the daemon; guests and traffic go on.")] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="HOST:PORT",
            help="Tell numbers and health there too (Prometheus, 127.0.0.1:9464).",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="How to write the log, on standard error.")
    ] = LogFormat.TEXT,
    ipfix: Annotated[
        str | None, typer.Option("--ipfix", metavar="HOST:PORT", help="Send flow records to this collector.")
    ] = None,
) -> int:
    """Run vnetd, the daemon, in the foreground.

    With -v it logs requests too. Under systemd it says when it is ready and that it lives.
    """
    from vnet.cli import daemon

    if ipfix is not None:
        os.environ["VNET_IPFIX"] = ipfix
    if not stop:
        daemon.become(
            *(("--metrics", metrics) if metrics else ()),
            *("--log-format", log_format.value),
            *(("--verbose",) if settings.verbose else ()),
        )
    return _stop(settings.client())


def _stop(client: Client) -> int:
    from vnet.cli import daemon

    if not client.alive():
        tell("vnetd does not run")
        return Exit.OK
    answer = client.post("/v1/shutdown")
    pid = answer["pid"]
    daemon.wait_for_end(pid)
    tell(f"vnetd (pid {pid}) has ended; guests and traffic go on")
    for name in answer["unconfirmed"]:
        tell(f"{name}: its last change is not confirmed; only a daemon that runs can roll it back")
    return Exit.OK


def version(settings: Settings) -> None:
    """Print the version of the client and of a running daemon."""
    client = settings.client()
    running = client.get("/v1/version") | {"ready": _readiness(client)} if client.alive() else None
    if settings.output in (Format.JSON, Format.YAML):
        document({"client": __version__, "daemon": running}, settings.output)
        return
    emit(f"vnet {__version__}")
    if running:
        reasons = running["ready"]["reasons"]
        state = "; ".join(f"{each['fabric']}: {each['why']}" for each in reasons) or "ready"
        emit(f"vnetd {running['version']} (pid {running['pid']}): {state}")
