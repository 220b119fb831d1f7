"""pcap filter expressions from people, compiled where they can hold up nobody else.

libpcap's time and memory grow with the square of an expression and more, and it asks name servers. So a
process of its own compiles, which is ended when it takes too much.
"""

from __future__ import annotations

import resource
import subprocess
import sys

from vnet.base.errors import HostError, InputError
from vnet.capture.live.libpcap import compile_filter

SECONDS = 5
"""An expression of as many instructions as the switch takes needs about that on a busy machine."""
MEMORY_BYTES = 1 << 30
REFUSED = 3
"""The exit status with the words of an InputError on standard error."""


def compile_bounded(expression: str) -> bytes:
    """As `compile_filter`, within `SECONDS`. It waits: run it in a thread.

    Raises: InputError, also for an expression that takes too much; HostError.
    """
    if not expression.strip():
        return b""
    command = [sys.executable, "-P", "-m", __name__]
    words = expression.encode("utf-8", "surrogateescape")
    try:
        done = subprocess.run(command, input=words, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise _too_much(expression) from None
    except OSError as error:
        raise HostError(f"cannot run {sys.executable}: {error.strerror}") from error
    told = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode == REFUSED:
        raise InputError(told)
    if done.returncode < 0:
        raise _too_much(expression)
    if done.returncode:
        raise HostError(
            f"the filter could not be compiled: {told.splitlines()[-1] if told else 'no reason given'}"
        )
    return done.stdout


def _too_much(expression: str) -> InputError:
    shown = expression if len(expression) <= 60 else f"{expression[:60]}…"
    return InputError(
        f'filter "{shown}" takes libpcap too much time or memory: write a shorter one (net instead of many '
        "hosts, portrange instead of many ports), and addresses instead of names"
    )


def main() -> int:
    """Compile what standard input has to standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        program = compile_filter(sys.stdin.buffer.read().decode("utf-8", "surrogateescape"))
    except (InputError, HostError) as error:
        sys.stderr.write(str(error))
        return REFUSED if isinstance(error, InputError) else 1
    sys.stdout.buffer.write(program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
