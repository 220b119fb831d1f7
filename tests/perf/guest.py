"""The machine whose clock counts instructions."""

from __future__ import annotations

from tests.guests.boot import Machine

MACHINE = Machine(
    options="-icount shift=0,sleep=off -cpu max,-erms,-fsrm,-cx16 -smp 1",
    memory_mib=1536,
    kernel_line="nokaslr init_on_alloc=0 tsc=reliable no_timer_check",
)
"""With shift=0 one instruction is one nanosecond. Without fast string instructions a copy costs what it
copies, and does not count as one instruction. Without cmpxchg16b, because QEMU 7.2 now and then leaves
wrong flags behind it under icount and the kernel dies of a double fault in its allocator; a packet costs
20 instructions more, with and without a switch."""
