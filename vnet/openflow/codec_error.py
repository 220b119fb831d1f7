"""What is raised for bytes that are not a message this switch understands."""

from __future__ import annotations

from vnet.base.errors import PeerError
from vnet.openflow.message import ONF, BadAction, BadRequest, Error, ErrorType

ERROR_DATA_BYTES = 64
"""How much of the offending request an Error carries (OpenFlow 1.3.5, section 7.5.4)."""


class CodecError(PeerError):
    """Malformed or unsupported input; `error` is what to answer and `xid` whom.

    `bundle_id` is set when the fault is inside a BundleAdd: that bundle can no longer be committed.
    """

    def __init__(self, error_type: int, code: int, data: bytes = b"", xid: int = 0) -> None:
        self.error_type, self.code = int(error_type), int(code)
        self.data, self.xid = data[:ERROR_DATA_BYTES], xid
        self.bundle_id: int | None = None
        super().__init__(f"OpenFlow error type {self.error_type} code {self.code} for xid {xid:#x}")

    def about(self, data: bytes, xid: int) -> CodecError:
        """The same fault, told of a whole message."""
        told = CodecError(self.error_type, self.code, data, xid)
        told.bundle_id = self.bundle_id
        return told

    @property
    def error(self) -> Error:
        """The answer."""
        owner = ONF if self.error_type == ErrorType.EXPERIMENTER else 0
        return Error(self.error_type, self.code, self.data, owner)


def bad_action(code: BadAction) -> CodecError:
    """A fault of an action."""
    return CodecError(ErrorType.BAD_ACTION, code)


def bad_length() -> CodecError:
    """A message that is shorter or longer than its contents."""
    return CodecError(ErrorType.BAD_REQUEST, BadRequest.BAD_LEN)
