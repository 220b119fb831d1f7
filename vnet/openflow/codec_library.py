"""The one place that imports the OpenFlow protocol library: os-ken, the maintained form of Ryu.

`VNET_OF_LIB=ryu` uses the original, whose codec modules have the same contents. Only the codec
(`ofproto`) is used, never the runtime: importing it loads neither eventlet nor a hub.

It is asked for one field or one action at a time: its parsers of lists trust the length each
element claims, and do not end when one claims zero.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

_NAME = os.environ.get("VNET_OF_LIB", "os_ken")

ofproto: Any = import_module(f"{_NAME}.ofproto.ofproto_v1_3")
parser: Any = import_module(f"{_NAME}.ofproto.ofproto_v1_3_parser")
