"""What is piped into `exec`: all of it or a word about why not."""

import os
import threading
import time

import pytest

from vnet.base.errors import InputError
from vnet.cli.given import read_all


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def test_all_of_standard_input_is_read_however_it_comes(pipe):
    def write():
        for piece in (b"one ", b"two ", b"x" * 100_000):
            os.write(pipe[1], piece)
            time.sleep(0.01)
        os.close(pipe[1])

    thread = threading.Thread(target=write)
    thread.start()
    assert read_all(pipe[0]) == b"one two " + b"x" * 100_000
    thread.join()


def test_an_input_too_long_for_a_guest_is_refused(pipe):
    os.write(pipe[1], b"123456")
    os.close(pipe[1])
    with pytest.raises(InputError, match="longer"):
        read_all(pipe[0], max_bytes=5)


def test_a_pipe_that_nobody_closes_is_told_of(pipe, capsys):
    threading.Timer(0.1, os.close, [pipe[1]]).start()
    assert read_all(pipe[0], silence_s=0.02) == b""
    assert "</dev/null" in capsys.readouterr().err
