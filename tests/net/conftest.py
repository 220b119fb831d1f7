"""The fixtures of tests/bpf that these tests use too."""

from __future__ import annotations

from tests.bpf.conftest import bench as bench
