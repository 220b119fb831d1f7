"""How the file systems of a guest stand still for a moment: shell scripts for its agent.

Frozen, nothing can be written and all that was written is on the disk: what is copied then needs no repair. A
guest whose host dies in that moment must not stay so: a watchdog in the guest thaws it by itself.

Source: fsfreeze(8); linux/fs.h, FIFREEZE; proc(5), /proc/mounts.
"""

from __future__ import annotations

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


FREEZE = f"""\
list=/run/vnet-frozen
[ -e $list ] && {{ echo "its file systems are frozen already" >&2; exit 1; }}
thaw() {{ [ -e $list ] && while read -r at; do fsfreeze --unfreeze "$at"; done <$list; rm -f $list; }}
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
setsid sh -c 'sleep {WATCHDOG_S}; while read -r at; do fsfreeze --unfreeze "$at"; done <'$list'
    rm -f '$list </dev/null >/dev/null 2>&1 &
echo $! >$list.watchdog
printf %s "$found" | while IFS= read -r at; do
    fsfreeze --freeze "$at" || exit 1
    echo "$at" >>$list
done || {{ thaw; exit 1; }}
"""
"""What was mounted last is frozen first, and each file system once, wherever it is mounted besides.

Exit code 3 if there is none."""

THAW = """\
list=/run/vnet-frozen
read -r watchdog <$list.watchdog 2>/dev/null && kill -KILL -- "-$watchdog" 2>/dev/null
rm -f $list.watchdog
[ -e $list ] || exit 3
while read -r at; do fsfreeze --unfreeze "$at"; done <$list
rm -f $list
"""
"""Exit code 3 if nothing was frozen any more."""

NOTHING_THERE = 3
