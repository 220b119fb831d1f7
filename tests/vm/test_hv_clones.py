"""Three clones of one template: they are alike in nothing that matters; and all that `exec` can do."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path

import pytest

from tests.vm.hv_lab import FABRIC, lab, spec
from vnet.base import paths
from vnet.base.errors import TimedOut


@pytest.fixture(scope="module")
def clones():
    with lab() as made:
        made.start(spec(9))  # whatever has to be made once is made now
        made.run(made.manager.destroy(FABRIC, "vm-9"))
        began = time.monotonic()
        made.statuses = made.start(spec(1, nics=2), spec(2), spec(3))
        made.took_s = time.monotonic() - began
        yield made


def test_clones_are_warm_and_quick(clones):
    assert [status.warm for status in clones.statuses] == [True] * 3
    assert clones.progress.count("booting a template of 96 MiB for warm clones") <= 1
    assert clones.took_s < 20, "three clones take about 2 s on an idle machine"


def test_each_clone_is_somebody_else(clones):
    script = "hostname; cat /sys/class/net/eth0/address /proc/sys/kernel/random/boot_id"
    answers = [clones.exec(n, "sh", "-c", script).stdout.decode().split() for n in (1, 2, 3)]
    assert [answer[0] for answer in answers] == ["vm-1", "vm-2", "vm-3"]
    assert [answer[1] for answer in answers] == [f"52:54:00:09:00:0{n}" for n in (1, 2, 3)]
    assert len({answer[2] for answer in answers}) == 3


def test_clones_draw_different_random_numbers(clones):
    script = "head -c 32 /dev/urandom"
    assert len({clones.exec(n, "sh", "-c", script).stdout for n in (1, 2, 3)}) == 3


@pytest.mark.parametrize("address", ["10.9.0.2", "fd09::3"])
def test_clones_reach_each_other(clones, address):
    done = clones.exec(1, "ping", "-c", "2", "-W", "5", address)
    assert done.exit_code == 0, done


def test_a_nic_that_was_plugged_first_has_the_first_name(clones):
    macs = [clones.exec(1, "cat", f"/sys/class/net/eth{k}/address").stdout.decode() for k in (0, 1)]
    assert macs == ["52:54:00:09:00:01\n", "52:54:00:09:01:01\n"]


def test_clones_share_the_memory_of_their_template_and_cannot_change_it(clones):
    pid = clones.statuses[0].pid
    memory = next(path for path in Path(f"/proc/{pid}/fd").iterdir() if "memfd" in str(path.readlink()))
    with open(memory, "r+b", buffering=0) as file, pytest.raises(PermissionError):
        file.write(b"x")
    shared = [
        line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if "Shared_" in line
    ]
    assert sum(int(line.split()[1]) for line in shared) > 10_000  # KiB


def test_the_exit_code_and_both_streams_come_back(clones):
    done = clones.exec(1, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert clones.exec(1, "no-such-program").exit_code == 127
    assert clones.exec(1, "sh", "-c", "kill -TERM $$").exit_code == 128 + 15


def test_words_arrive_as_they_were_given(clones):
    words = ["a b", "it's", "$HOME `id`", "*", "two\nlines", "", "ü"]
    assert clones.exec(1, "printf", "[%s]", *words).stdout.decode() == "".join(f"[{word}]" for word in words)


def test_binary_output_is_not_changed(clones):
    every = bytes(range(256))
    assert clones.exec(1, "cat", stdin=every).stdout == every


def test_a_megabyte_goes_in_and_comes_out(clones):
    data = hashlib.sha256(b"x").digest() * (1 << 15)
    done = clones.exec(
        1, "sh", "-c", "tee /tmp/copy | sha256sum >&2; cat /tmp/copy; rm /tmp/copy", stdin=data
    )
    assert done.stdout == data
    assert done.stderr.decode().split()[0] == hashlib.sha256(data).hexdigest()


def test_without_input_a_reader_sees_the_end_at_once(clones):
    assert clones.exec(1, "cat", timeout_s=10).stdout == b""


def test_a_command_that_takes_too_long_is_ended_with_all_its_children(clones):
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"did not end within 1 s; it was ended. Its last output:\nhello"):
        clones.exec(1, "sh", "-c", "echo hello; sleep 54321 & sleep 54321", timeout_s=1)
    assert time.monotonic() - began < 15
    assert b"54321" not in clones.exec(1, "ps").stdout.replace(b"grep", b"")


def test_commands_run_beside_each_other(clones):
    async def both():
        serve = "echo served | nc -l -p 5432"
        listener = asyncio.create_task(clones.manager.exec(FABRIC, "vm-2", ["sh", "-c", serve]))
        connect = "for i in 1 2 3 4 5 6 7 8 9; do nc -w 2 10.9.0.2 5432 </dev/null && break; sleep 0.2; done"
        client = await clones.manager.exec(FABRIC, "vm-1", ["sh", "-c", connect])
        return client, await listener

    client, listener = clones.run(both())
    assert client.stdout == b"served\n" and listener.exit_code == 0


def test_udp_can_be_probed(clones):
    async def both():
        listen = ["nc.openbsd", "-u", "-l", "-W", "1", "-w", "5", "5353"]
        listener = asyncio.create_task(clones.manager.exec(FABRIC, "vm-2", listen))
        send = "for i in 1 2 3; do echo hi | nc.openbsd -u -w 1 10.9.0.2 5353; done"
        await clones.manager.exec(FABRIC, "vm-3", ["sh", "-c", send])
        return await listener

    assert clones.run(both()).stdout.startswith(b"hi\n")


def test_twenty_commands_at_a_time_get_their_own_answers(clones):
    async def many():
        commands = (clones.manager.exec(FABRIC, "vm-3", ["echo", str(n)]) for n in range(20))
        return await asyncio.gather(*commands)

    assert [int(done.stdout) for done in clones.run(many())] == list(range(20))


def test_a_server_left_in_the_background_outlives_its_command(clones):
    done = clones.exec(3, "sh", "-c", "nc -ll -p 7000 -e echo here >/dev/null 2>&1 &")
    assert done.exit_code == 0
    client = clones.exec(1, "sh", "-c", "sleep 0.5; nc -w 3 10.9.0.3 7000 </dev/null")
    assert client.stdout == b"here\n"


def test_a_client_that_broke_off_in_the_middle_does_not_spoil_the_next(clones):
    async def break_off():
        guest = paths.vm_run_dir(FABRIC, "vm-2")
        await clones.manager.close()
        for _ in range(3):
            _, writer = await asyncio.open_unix_connection(str(guest / "agent.sock"))
            writer.write(b"\nsync old\nrun old-1 'sleep' '0.1'\ndata old-2 30000\nhalf")
            await writer.drain()
            await asyncio.sleep(0.2)
            writer.close()

    clones.run(break_off())
    clones.manager = clones.new_manager()
    statuses = clones.run(clones.manager.adopt(FABRIC, [spec(1, nics=2), spec(2), spec(3)]))
    assert [status.state.value for status in statuses] == ["running"] * 3
    assert clones.exec(2, "echo", "fine", timeout_s=20).stdout == b"fine\n"
    assert clones.exec(2, "cat", stdin=b"x" * 100_000).stdout == b"x" * 100_000


def test_waiting_for_a_guest_that_is_ready_returns_at_once(clones):
    clones.run(clones.manager.wait_ready(FABRIC, "vm-1", 10))
