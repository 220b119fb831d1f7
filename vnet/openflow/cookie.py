"""How vnet's flows use the 64-bit OpenFlow cookie.

| bits  | meaning                                                                    |
|-------|----------------------------------------------------------------------------|
| 63-56 | owner, 0x76 ("v"): the flow belongs to vnet's policy controller             |
| 55    | log: what the flow decides is to be told (`log: true`)                      |
| 54-48 | drop reason (`DropReason`, 0 if the flow does not drop)                     |
| 47-0  | reference: a digest of the flow's origin (policy, rule), not of its line    |

The switch reads only the reason, so the same flows run on any OpenFlow 1.3 switch. A reference
does not change when lines are added to the topology file, so an edit of a comment changes no flow.
"""

from __future__ import annotations

from hashlib import blake2b

from vnet.base.drop import DropReason

OWNER = 0x76
OWNER_COOKIE = OWNER << 56
OWNER_MASK = 0xFF << 56
LOG = 1 << 55
REASON_MASK = 0x7F


def make(origin: str, reason: DropReason = DropReason.NONE, log: bool = False) -> int:
    """The cookie of the flows that `origin` (any text that names it uniquely) gave rise to."""
    reference = int.from_bytes(blake2b(origin.encode(), digest_size=6).digest(), "big")
    return OWNER_COOKIE | (LOG if log else 0) | int(reason) << 48 | reference


def reason(cookie: int) -> DropReason:
    """The drop reason a cookie names; `RULE` for cookies that are not vnet's or name none."""
    code = cookie >> 48 & REASON_MASK
    if cookie >> 56 != OWNER or code not in DropReason._value2member_map_ or code == 0:
        return DropReason.RULE
    return DropReason(code)


def is_logged(cookie: int) -> bool:
    """Whether what flows of this cookie decide is to be told."""
    return cookie >> 56 == OWNER and bool(cookie & LOG)


def gives_reason(cookie: int) -> bool:
    """Whether flows of this cookie are vnet's and say why they drop."""
    return cookie >> 56 == OWNER and bool(cookie >> 48 & REASON_MASK)
