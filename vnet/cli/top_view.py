"""What `vnet top` shows: a pure function of what was seen, the terminal's size, and the state of the view.

From the top: totals, the host, lost packets by reason, the daemon and what is not ready; then a line for each
VM; last the keys. Each sparkline has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vnet.cli import top_resources as resources
from vnet.cli.output import age, amount
from vnet.cli.top_form import (
    NAME_LEAST,
    Connection,
    Line,
    Row,
    Seen,
    Size,
    Sort,
    Span,
    View,
    label,
    shortened,
)
from vnet.fabric.numbers import VmNumbers
from vnet.fabric.rates import Rates, TrafficRate, VmRate
from vnet.fabric.readiness import Unready, unready
from vnet.fabric.strain import WAITS

HEAD_LINES = 7
BARS = " ▁▂▃▄▅▆▇█"
BARS_ASCII = " .:-=+*#@"
WHY_MOST, SPARK_MOST = 24, 24


def plain(lines: Iterable[Line]) -> str:
    """The text alone, without spaces at the ends of lines."""
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in lines)


def render(seen: Seen, size: Size, view: View) -> tuple[Line, ...]:
    """The screen, exactly as many lines as it has; none is longer than it is wide."""
    if view.help:
        lines = [*_KEYS_HELP, *(resources.HELP if view.resources else _HELP), *[()] * size.lines][
            : size.lines - 1
        ]
        return tuple(_cut(line, size.columns) for line in (*lines, _keys(view, "")))
    heading, *rows = _body(seen, size.columns, view)
    room = page(size)
    offset = max(0, min(view.offset, len(rows) - room))
    shown = rows[offset : offset + room]
    table = [heading, *shown, *[()] * room][: room + 1]
    where = f"{offset + 1 if rows else 0}-{offset + len(shown)} of {len(rows)}"
    lines = [*_head(seen, size.columns, view), *table, _keys(view, where)]
    return tuple(_cut(line, size.columns) for line in lines[: size.lines - 1] + lines[-1:])


def whole(seen: Seen, columns: int, view: View) -> tuple[Line, ...]:
    """All VMs, for paper: as long as it needs to be, without keys."""
    return tuple(_cut(line, columns) for line in (*_head(seen, columns, view), *_body(seen, columns, view)))


def count(seen: Seen, view: View) -> int:
    """How many lines there are to scroll through."""
    return len(connections(seen, view) if view.connections else chosen(seen, view))


def _body(seen: Seen, columns: int, view: View) -> list[Line]:
    """The heading, then a line for each VM or connection."""
    several = len(seen.now.fabrics) > 1
    if view.connections:
        return _connections(connections(seen, view), columns, view, several)
    if view.resources:
        return resources.table(seen, chosen(seen, view), columns, view, several)
    return _table(chosen(seen, view), columns, view, several)


def page(size: Size) -> int:
    """How many VMs fit."""
    return max(1, size.lines - HEAD_LINES - 1)


# -- the table ------------------------------------------------------------------------------------


def chosen(seen: Seen, view: View) -> list[Row]:
    """The VMs that the filter lets through, in order."""
    wanted = (view.filter if view.typing is None else view.typing).lower()
    rows = [_row(seen, fabric.name, vm) for fabric in seen.now.fabrics for vm in fabric.vms]
    return sorted(filter(lambda row: wanted in _searched(row), rows), key=_ORDER[view.sort])


def _searched(row: Row) -> str:
    return f"{row.fabric}/{row.vm.name} {row.vm.state} {row.rate.reason}".lower()


def _row(seen: Seen, fabric: str, vm: VmNumbers) -> Row:
    nothing = VmRate(fabric, vm.name, TrafficRate())
    past = [rates.vms.get((fabric, vm.name), nothing) for rates in seen.rates]
    return Row(
        fabric,
        vm,
        past[-1] if past else nothing,
        tuple(rate.traffic.sent_bytes_ps for rate in past),
        tuple(rate.traffic.received_bytes_ps for rate in past),
    )


_ORDER: Mapping[Sort, Callable[[Row], tuple[float | str, ...]]] = {
    Sort.TRAFFIC: lambda row: (
        -(row.rate.traffic.sent_bytes_ps + row.rate.traffic.received_bytes_ps),
        *_name(row),
    ),
    Sort.CPU: lambda row: (-row.rate.cpu, *_name(row)),
    Sort.READY: lambda row: (-row.rate.ready, *_name(row)),
    Sort.MEMORY: lambda row: (-row.vm.resident_bytes, *_name(row)),
    Sort.DISK: lambda row: (-sum(each.operations_ps for each in row.rate.disks), *_name(row)),
    Sort.DROPS: lambda row: (-row.rate.traffic.drops_pps, *_name(row)),
    Sort.NAME: lambda row: _name(row),
}


def _name(row: Row) -> tuple[str, ...]:
    return row.fabric, row.vm.name


@dataclass(frozen=True, slots=True)
class _Widths:
    name: int
    spark: int
    why: int


_FIXED = 8 + 5 + 5 + 5 + 6 + 6 + 6 + 9
"""State, CPU, ready, memory, two rates, drops, and a space behind each column but the last."""


def _widths(rows: Sequence[Row], columns: int, several: bool) -> _Widths:
    """Names first, then reasons, then sparklines share what is left."""
    longest = max((len(label(row, several)) for row in rows), default=0)
    left = columns - _FIXED
    name = max(NAME_LEAST, min(longest, left - 22))
    left = max(0, left - name)
    reason = max((len(row.rate.reason) for row in rows), default=0)
    why = max(3, min(WHY_MOST, left - 5, max(reason, 6)))
    return _Widths(name, max(0, min(SPARK_MOST, (left - why) // 2)), why)


def _table(rows: Sequence[Row], columns: int, view: View, several: bool) -> list[Line]:
    widths = _widths(rows, columns, several)
    heading = (
        f"{'VM':<{widths.name}} {'STATE':<8} {'CPU%':>5} {'RDY%':>4} {'MEM':>5} {'TX/s':>6}"
        f" {'':<{widths.spark}} {'RX/s':>6} {'':<{widths.spark}} {'LOST/s':>6} WHY"
    )
    return [(Span(f"{heading:<{columns}}", "head"),), *(_vm(row, widths, view, several) for row in rows)]


def _vm(row: Row, widths: _Widths, view: View, several: bool) -> Line:
    vm, rate, traffic = row.vm, row.rate, row.rate.traffic
    bars = BARS if view.unicode else BARS_ASCII
    return (
        Span(f"{shortened(label(row, several), widths.name, view.unicode):<{widths.name}} "),
        Span(f"{vm.state[:8]:<8} ", _STATE_STYLES.get(vm.state, "warn")),
        Span(f"{rate.cpu * 100:>5.0f} "),
        Span(f"{rate.ready * 100:>4.0f} ", "warn" if rate.ready >= WAITS else ""),
        Span(f"{amount(vm.resident_bytes, 1024):>5} "),
        Span(f"{amount(traffic.sent_bytes_ps):>6} "),
        Span(f"{spark(row.sent, widths.spark, bars)} ", "good"),
        Span(f"{amount(traffic.received_bytes_ps):>6} "),
        Span(f"{spark(row.received, widths.spark, bars)} ", "good"),
        Span(f"{amount(traffic.drops_pps):>6} {rate.reason}", "bad" if traffic.drops_pps else "dim"),
    )


_STATE_STYLES = {"ready": "good", "crashed": "bad", "stopped": "dim"}


def spark(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """The newest values, on the right, on a scale up to the largest of them; what is above 0 shows."""
    shown = values[-width:] if width else ()
    most = max(shown, default=0.0)
    steps = len(bars) - 1
    marks = (0 if value <= 0 else max(1, round(steps * value / most)) for value in shown)
    return "".join(bars[mark] for mark in marks).rjust(width)


# -- connections ----------------------------------------------------------------------------------


def connections(seen: Seen, view: View) -> list[Connection]:
    """Those that the filter lets through, the most first."""
    wanted = (view.filter if view.typing is None else view.typing).lower()
    found = [
        each
        for each in seen.connections
        if wanted in f"{each.fabric}/{each.client} {each.server} {each.service}".lower()
    ]
    return sorted(found, key=lambda each: -(each.sent_bytes_ps + each.received_bytes_ps))


def _connections(found: Sequence[Connection], columns: int, view: View, several: bool) -> list[Line]:
    """Both ends share what services and rates leave."""
    service = max((len(each.service) for each in found), default=7)
    width = max(NAME_LEAST, (columns - service - 17) // 2)

    def line(client: str, server: str, what: str, sent: str, received: str) -> str:
        ends = (f"{shortened(each, width, view.unicode):<{width}}" for each in (client, server))
        return f"{' '.join(ends)} {what:<{service}} {sent:>6} {received:>6}"

    heading = line("CLIENT", "SERVER", "SERVICE", "TX/s", "RX/s")
    return [
        (Span(f"{heading:<{columns}}", "head"),),
        *((Span(line(*_connection(each, several))),) for each in found),
    ]


def _connection(each: Connection, several: bool) -> tuple[str, str, str, str, str]:
    client = f"{each.fabric}/{each.client}" if several else each.client
    return client, each.server, each.service, amount(each.sent_bytes_ps), amount(each.received_bytes_ps)


# -- what stands above and below ------------------------------------------------------------------


def _head(seen: Seen, columns: int, view: View) -> list[Line]:
    now, rates = seen.now, seen.last
    vms = [vm for fabric in now.fabrics for vm in fabric.vms]
    ready = sum(vm.state == "ready" for vm in vms)
    clock = datetime.fromtimestamp(now.time_ns / 1e9, UTC).strftime("%H:%M:%S")
    there = f"{_counted(len(now.fabrics), 'fabric')}  {_counted(len(vms), 'VM')}, {ready} ready"
    title = f"vnet top  {clock} UTC  {there}"
    total = rates.total
    cpu = sum(rate.cpu for rate in rates.vms.values())
    return [
        (Span(title, "title"), Span("  PAUSED" if view.paused else "", "warn")),
        (
            Span(
                f"total   TX {amount(total.sent_bytes_ps)}B/s {amount(total.sent_pps)} packets/s"
                f"  RX {amount(total.received_bytes_ps)}B/s {amount(total.received_pps)} packets/s"
                f"  CPU {cpu * 100:.0f}%"
            ),
        ),
        _host(seen),
        _lost(rates, columns),
        _daemon(seen),
        _trouble(seen),
    ]


def _host(seen: Seen) -> Line:
    host, waits = seen.now.host, seen.last.host
    text = (
        f"host    {_counted(host.cpus, 'CPU')}, {_counted(seen.now.running_vcpus, 'vCPU')}"
        f"  {amount(host.available_bytes, 1024)} of {amount(host.memory_bytes, 1024)} free  waits"
    )
    found = (("CPU", waits.cpu), ("mem", waits.memory), ("disk", waits.io))
    return (
        Span(text),
        *(Span(f" {what} {share * 100:.0f}%", "warn" if share >= WAITS else "") for what, share in found),
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _lost(rates: Rates, columns: int) -> Line:
    """Reasons, the most frequent first, as many as fit."""
    most = sorted(rates.drops_pps.items(), key=lambda item: (-item[1], item[0]))
    found = [f"{reason} {amount(pps)}/s" for reason, pps in most if pps > 0]
    text = f"lost    {amount(sum(rates.drops_pps.values()))} packets/s"
    for one in found:
        if len(text) + 2 + len(one) > columns:
            break
        text += f"  {one}"
    return (Span(text, "bad" if found else ""),)


def _daemon(seen: Seen) -> Line:
    daemon = seen.now.daemon
    problems = {level: n for level, n in daemon.messages.items() if level in ("warning", "error", "critical")}
    said = "".join(f"  {_counted(n, level)}" for level, n in sorted(problems.items()) if n)
    unreported = seen.last.lost_events_ps
    lost = f"  {amount(unreported)} packets/s not reported" if unreported else ""
    memory, lag_ms = amount(daemon.resident_bytes, 1024), daemon.lag_s * 1000
    text = f"vnetd   up {age(daemon.uptime_s)}  memory {memory}  lag {lag_ms:.0f} ms"
    return (Span(text), Span(lost, "warn"), Span(said, "warn"))


def _trouble(seen: Seen) -> Line:
    if seen.silence:
        return (Span(f"vnetd   {seen.silence}", "bad"),)
    found = unready(seen.now)
    if not found and seen.warnings:
        more = f" (and {len(seen.warnings) - 1} more: vnet doctor)" if len(seen.warnings) > 1 else ""
        return (Span(f"warning {seen.warnings[0].text}{more}", "warn"),)
    if not found:
        return (Span("ready   what is wanted is in force", "dim"),)
    more = f" (and {len(found) - 1} more: vnet doctor)" if len(found) > 1 else ""
    return (Span(f"not ready: {_why(found[0])}{more}", "bad"),)


def _why(one: Unready) -> str:
    return f"{one.fabric}: {' '.join(one.why.split())}"


def _keys(view: View, where: str) -> Line:
    if view.typing is not None:
        return (Span(f"filter: {view.typing}_   Enter keeps it, Esc clears it", "keys"),)
    if view.help:
        return (Span("any key goes back", "keys"),)
    named = f" {view.filter}" if view.filter else ""
    other = "c VMs" if view.connections else f"s sort:{view.sort}  c connections"
    other += "" if view.connections else "  m traffic" if view.resources else "  m disks"
    text = f"q quit  {other}  / filter{named}  ? help"
    return (Span(text, "keys"), Span(f"  {where}", "dim"))


_KEYS_HELP: tuple[Line, ...] = (
    (Span("vnet top: what the VMs of this host send, get and lose", "title"),),
    (),
    (Span("  q            quit"),),
    (Span("  s            sort by traffic, cpu, ready, memory, disk, drops, name in turn"),),
    (Span("  m            memory and disks, and back"),),
    (Span("  c            the connections that carry most, and back"),),
    (Span("  /            show only VMs whose fabric, name, state or reason has a text"),),
    (Span("  ↑ ↓ k j      one line; PgUp PgDn a page; Home End all the way"),),
    (Span("  p, space     pause; what is on the screen stays"),),
    (Span("  ? h          this"),),
    (),
)
_HELP: tuple[Line, ...] = (
    (Span("CPU%    of one processor, used by the VM's QEMU"),),
    (Span("RDY%    of the time a vCPU could run and had no CPU of the host: 10 is much"),),
    (Span("MEM     what the host spends on it; clones share pages, which count in each"),),
    (Span("TX/s    bytes that the VM sends, RX/s those it gets; k, M, G are powers of 1000"),),
    (Span("        the bars are the last of them, each line on a scale of its own"),),
    (Span("LOST/s  packets that it sent and that were lost, or that were too long for it"),),
    (Span("WHY     the reason of most of them, of those that were reported: `vnet drops`"),),
)


def _cut(line: Line, columns: int) -> Line:
    found: list[Span] = []
    for span in line:
        if columns <= 0:
            break
        found.append(Span(span.text[:columns], span.style))
        columns -= len(span.text)
    return tuple(found)
