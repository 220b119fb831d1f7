"""What Wireshark's own tools make of our files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.capture.samples import DENIED_AT, delivered, explain, record, table_name
from vnet.capture.comment import annotate
from vnet.capture.pcapng import PcapngEncoder, Producer

pytestmark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")


@pytest.fixture
def capture_file(tmp_path: Path) -> Path:
    encoder = PcapngEncoder(Producer("host-1", "Linux", "vnet"), expression="tcp")
    stream = encoder.header()
    for lost, item in ((0, record()), (4, delivered())):
        encoder.lose(lost)
        stream += encoder.encode(item, annotate(item, explain, table_name))
        encoder.wrote(item)
    path = tmp_path / "demo.pcapng"
    path.write_bytes(stream + encoder.trailer(1_700_000_001_000_000_000))
    return path


def _output(*argv: str | Path) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _fields(path: Path, *names: str) -> list[str]:
    asked = (word for name in names for word in ("-e", name))
    return _output("tshark", "-r", path, "-T", "fields", *asked).splitlines()


def test_tshark_prints_interface_time_and_comment(capture_file: Path) -> None:
    circumstances = "(table ingress, ct_state=+trk+new, generation 3)"
    denied = f"dropped: POLICY — {DENIED_AT} {circumstances}"
    handed = f"delivered — {DENIED_AT} {circumstances}"
    assert _fields(capture_file, "frame.interface_name", "frame.time_epoch", "frame.comment") == [
        f"app.eth1/guest\t1700000000.123456789\t{denied}",
        f"db.eth0/delivered\t1700000000.123456789\t{handed}",
    ]


def test_tshark_shows_verdict_direction_and_losses(capture_file: Path) -> None:
    assert _fields(capture_file, "frame.verdict.ebpf_tc", "frame.p2p_dir", "frame.drop_count") == [
        "2\t0\t",
        "7\t1\t4",
    ]


def test_tshark_finds_drops_by_their_comment(capture_file: Path) -> None:
    found = _output("tshark", "-r", capture_file, "-Y", 'frame.comment contains "dropped: POLICY"')
    assert len(found.splitlines()) == 1


def test_capinfos_accepts_the_file_and_tells_who_wrote_it(capture_file: Path) -> None:
    told = _output("capinfos", capture_file)
    assert "Capture application: vnet" in told
    assert "Number of packets:   2" in told
    assert "Number of interfaces in file: 2" in told
    assert "Filter string = tcp" in told
    assert "Time precision = nanoseconds (9)" in told
