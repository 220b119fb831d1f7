"""How the file systems of a guest stand still for a moment: shell scripts for its agents.

Frozen, nothing can be written and all that was written is on the disk: what is copied then needs no repair. A
guest whose host dies in that moment must not stay so: a watchdog in the guest thaws it by itself.

Source: fsfreeze(8); linux/fs.h, FIFREEZE; proc(5), /proc/mounts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

WATCHDOG_S = 20
"""The guest thaws itself after so long, whatever becomes of the host."""
TIMEOUT_S = 10.0
"""How long freezing may take; writing out what is in memory is part of it."""


class FreezeMode(Enum):
    """What becomes of a backup whose guest cannot be frozen."""

    AUTO = "auto"
    """It is made, and says so."""
    REQUIRE = "require"
    """There is none."""
    NEVER = "never"
    """It is not tried."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Whether the guest's file systems were frozen for the moment; if not, `why`."""

    is_frozen: bool
    why: str = ""


_UNFREEZE = 'fsfreeze --unfreeze "$at"'


def _watchdog(thaw: str) -> str:
    """Begins what thaws the guest if nobody else does. One that is to end may be about to begin: it looks."""
    return f"""\
setsid sh -c 'sleep {WATCHDOG_S}
read -r own <'$list'.watchdog; [ "$own" = $$ ] || exit 0
{thaw}' </dev/null >/dev/null 2>&1 &
echo $! >$list.watchdog
"""


_END_WATCHDOG = """\
read -r watchdog 2>/dev/null <$list.watchdog && kill -KILL -- "-$watchdog" 2>/dev/null
rm -f $list.watchdog
"""

_LISTED = f"""\
while read -r at; do {_UNFREEZE}; done <'$list'
rm -f '$list'"""
_ALL = f"""\
while read -r device at rest; do
    case $device in /dev/*) at=$(printf %b "$at"); {_UNFREEZE} ;; esac
done </proc/mounts"""

FREEZE = f"""\
list=/run/vnet-frozen
[ -e $list ] && {{ echo "its file systems are frozen already" >&2; exit 1; }}
thaw() {{ [ -e $list ] && while read -r at; do {_UNFREEZE}; done <$list; rm -f $list; }}
devices= found=
while read -r device at kind options rest; do
    case $device in /dev/*) ;; *) continue ;; esac
    case ",$options," in *,ro,*) continue ;; esac
    case " $devices " in *" $device "*) continue ;; esac
    devices="$devices $device"
    found="$(printf %b "$at")
$found"
done </proc/mounts
[ -n "$found" ] || exit 3
: >$list
{_watchdog(_LISTED)}\
printf %s "$found" | while IFS= read -r at; do
    fsfreeze --freeze "$at" || exit 1
    echo "$at" >>$list
done || {{ thaw; exit 1; }}
"""
"""For vnet's own agent. What was mounted last is frozen first, and each file system once, wherever it is
mounted besides; those that are only read are left.

Exit code 3 if there is none."""

THAW = f"""\
list=/run/vnet-frozen
{_END_WATCHDOG}\
[ -e $list ] || exit 3
while read -r at; do {_UNFREEZE}; done <$list
rm -f $list
"""
"""Exit code 3 if nothing was frozen any more."""

NOTHING_THERE = 3

WATCH = f"""\
list=/run/vnet-frozen
{_END_WATCHDOG}{_watchdog(_ALL)}"""
"""Before qemu-guest-agent freezes, which does so by itself, in the order and with the exceptions of `FREEZE`.

It could not begin anything afterwards."""

REST = f"""\
list=/run/vnet-frozen
{_END_WATCHDOG}"""
"""The watchdog is not needed any more. It would thaw what is frozen next time."""
