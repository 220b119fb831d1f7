"""Streams into guests: what is run there, and what is believed of what they say."""

from __future__ import annotations

import subprocess

from vnet.hv import stream

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHFJhYxhWZNxEVBbWvUIynCWuu9iZv"


def test_the_keys_of_a_server_and_the_user_to_log_in_as_are_read() -> None:
    keys, user = stream.parse_who(f"{KEY} root@db\necdsa-sha2-nistp256 AAAA\nuser debian\n".encode())
    assert keys == (KEY, "ecdsa-sha2-nistp256 AAAA")
    assert user == "debian"


def test_a_guest_cannot_smuggle_anything_into_a_file_of_known_hosts_or_a_command_line() -> None:
    evil = "\n".join(
        [
            "*.example.org ssh-ed25519 AAAA",
            "@cert-authority * x",
            "ssh-rsa A\tB C",
            "user -oProxyCommand=x",
            "user a;b",
        ]
    )
    assert stream.parse_who(evil.encode()) == (("ssh-rsa A",), "")
    assert stream.parse_who(b"\xff\0 \n" * 10) == ((), "")


def relayed(number: int = 0) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(stream.relay(number, 22), capture_output=True, timeout=20)


def test_a_relay_where_the_machine_has_no_stream_says_so() -> None:
    assert relayed().returncode == stream.NO_PORT
