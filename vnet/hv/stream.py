"""Streams between a program on the host and one in a guest, which no network carries: ports of the machine.

A guest finds them in /dev/virtio-ports. In such a port there are no connections: who waits at one end is
not told that a program has come or gone at the other, but for an end of file when the host's leaves. So the
host's end is there first, then the guest's agent starts a relay, and when that ends the stream is over.
"""

from __future__ import annotations

STREAMS = 4
"""How many there can be at a time."""

BUSY, NO_PORT, NOBODY = 120, 121, 122
"""Exit codes of the relay: somebody has the stream, the machine has none, nobody listens in the guest."""

_RELAY = """\
port="/dev/virtio-ports/$1"
[ -e "$port" ] || exit 121
command exec 3<>"$port" || exit 120
command -v bash >/dev/null && exec bash -c '
exec 4<>/dev/tcp/127.0.0.1/$1 || exit 122
cat <&3 >&4 & cat <&4 >&3 & wait -n
kill $(jobs -p); exit 0' bash "$2" 2>/dev/null
sshd=$(command -v sshd || echo /usr/sbin/sshd)
[ "$2" = 22 ] && [ -x "$sshd" ] || exit 122
mkdir -p /run/sshd
exec "$sshd" -i -u0 <&3 >&3 2>/dev/null 3>&-
"""
"""What bash can reach; where there is none, an SSH server for this one connection.

That would be enough anywhere, but who connects so has no address, which PAM asks a name server for: where
none answers, that takes a minute. Source: sshd(8), -i and -u; bash(1), REDIRECTION.
"""

_WHO = """\
for key in /etc/ssh/ssh_host_*_key.pub; do [ -r "$key" ] && cat "$key"; done
awk -F: '$3 >= 1000 && $3 < 60000 { print "user", $1; exit }' /etc/passwd
"""
"""cloud-init makes its user first. Source: /etc/login.defs, UID_MIN."""


def port_of(number: int) -> str:
    """What a stream is called in the guest."""
    return f"org.vnet.stream.{number}"


def socket_of(number: int) -> str:
    """The name of its socket in the guest's folder on the host."""
    return f"stream{number}.sock"


def relay(number: int, tcp_port: int) -> list[str]:
    """The command in the guest that joins a stream with a TCP port of its own."""
    return ["sh", "-c", _RELAY, "sh", port_of(number), str(tcp_port)]


WHO = ("sh", "-c", _WHO)
"""The command that tells by which keys an SSH server is known, and who is to log in."""


def parse_who(output: bytes) -> tuple[tuple[str, ...], str]:
    """Keys and user of what `WHO` printed: the guest is not trusted, so no more than what may be such."""
    lines = output[:65536].decode("ascii", "replace").splitlines()
    words = [line.split() for line in lines]
    keys = tuple(" ".join(each[:2]) for each in words if _is_key(each))
    users = [each[1] for each in words if len(each) == 2 and each[0] == "user" and _is_user(each[1])]
    return keys, users[0] if users else ""


def _is_key(words: list[str]) -> bool:
    kinds = ("ssh-", "ecdsa-", "sk-")
    return len(words) >= 2 and words[0].startswith(kinds) and all(map(_is_plain, words[:2]))


def _is_plain(word: str) -> bool:
    return all(letter.isalnum() or letter in "+/=.@_-" for letter in word)


def _is_user(word: str) -> bool:
    return _is_plain(word) and word[0].isalnum()
