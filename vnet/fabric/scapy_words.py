"""Packets written as Scapy expressions, `IP(dst="10.0.0.2")/TCP(dport=80)`, read without running them.

The text is parsed as Python and only walked: calls of Scapy's layer classes with literal arguments, joined by
`/`. Nothing else is looked up or called. What Scapy would fill in by asking this host (its routes, its
neighbours, a name server) is refused or left to the caller.
"""

from __future__ import annotations

import ast
import importlib
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import ip_address
from typing import Any

from vnet.base.errors import InputError

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.fields import Field, IP6Field, IPField, MACField  # noqa: E402
from scapy.packet import Packet, Padding, Raw  # noqa: E402

MODULES = ("l2", "inet", "inet6", "sctp", "vxlan", "dns")
"""Of scapy.layers. Not dhcp: its options take names of hosts, which Scapy would look up."""
LENGTH_MAX = 20_000
"""Characters of an expression; a packet has at most 3500 bytes."""
DEPTH_MAX = 40
EXAMPLE = 'Ether()/IP(dst="10.0.0.2")/TCP(dport=80)'


@cache
def layers() -> Mapping[str, type[Packet]]:
    """The layer classes by name."""
    found: dict[str, type[Packet]] = {"Raw": Raw, "Padding": Padding}
    for name in MODULES:
        module = importlib.import_module(f"scapy.layers.{name}")
        for word, kind in vars(module).items():
            if isinstance(kind, type) and issubclass(kind, Packet) and kind.__module__ == module.__name__:
                found[word] = kind
    return found


def read(text: str) -> Packet:
    """The packet that an expression describes. Raises InputError with the place of what is not understood."""
    if len(text) > LENGTH_MAX:
        raise InputError(f"--packet: an expression of {len(text)} characters; {LENGTH_MAX} are read")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"--packet: {error}: write layers joined by /, as in {EXAMPLE}") from None
    found = _Reader(text.strip()).packet(tree.body, 0)
    if not isinstance(found, Packet):
        raise InputError(f"--packet: begin with a layer, as in {EXAMPLE}")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text

    def _refused(self, node: ast.AST, why: str) -> InputError:
        excerpt = ast.get_source_segment(self._text, node) if isinstance(node, ast.expr) else ""
        return InputError(f"--packet: {(excerpt or '')[:60]!r}: {why}")

    def packet(self, node: ast.expr, depth: int) -> Packet | bytes | str:
        """A layer, layers joined by /, or a payload of bytes."""
        if depth > DEPTH_MAX:
            raise self._refused(node, f"more than {DEPTH_MAX} layers")
        match node:
            case ast.BinOp(left, ast.Div(), right):
                under, over = self.packet(left, depth + 1), self.packet(right, depth + 1)
                if not isinstance(under, Packet):
                    raise self._refused(left, "a payload has nothing above it: begin with a layer")
                return under / over
            case ast.Call(ast.Name(name), arguments, keywords):
                return self._layer(node, name, arguments, keywords, depth)
            case ast.Constant(str() | bytes() as payload):
                return payload
            case _:
                raise self._refused(node, "only calls of Scapy's layers with literal arguments, joined by /")

    def _layer(
        self, node: ast.expr, name: str, arguments: list[ast.expr], keywords: list[ast.keyword], depth: int
    ) -> Packet:
        kind = layers().get(name)
        if kind is None:
            from vnet.topology.reading import suggestion

            near = suggestion(name, layers())
            raise self._refused(node, f"no layer of this name{'; ' if near else ''}{near}")
        given = self._given(kind, arguments, keywords, depth)
        try:
            return kind(**given)
        except Exception as error:  # noqa: BLE001  a layer's own code says what it does not take
            raise self._refused(node, f"{type(error).__name__}: {error}") from None

    def _given(
        self, kind: type[Packet], arguments: list[ast.expr], keywords: list[ast.keyword], depth: int
    ) -> dict[str, Any]:
        fields = {field.name: field for field in kind.fields_desc}
        if arguments and kind not in (Raw, Padding):
            raise self._refused(arguments[0], f"name the field: {', '.join(fields)}")
        words = {"load": arguments[0]} if arguments else {}
        for keyword in keywords:
            if keyword.arg is None or keyword.arg not in fields:
                raise self._refused(
                    keyword.value, f"{kind.__name__} has no field {keyword.arg}; it has {', '.join(fields)}"
                )
            words[keyword.arg] = keyword.value
        return {name: self._value(node, fields[name], depth) for name, node in words.items()}

    def _value(self, node: ast.expr, field: Any, depth: int) -> Any:
        value = self._literal(node, depth)
        if isinstance(value, (list, tuple)) and not (field.islist or field.holds_packets):
            raise self._refused(node, "one value, not several: one packet is traced")
        kinds = tuple(_kinds(field))
        if any(isinstance(kind, (IPField, IP6Field)) for kind in kinds):
            self._addresses(node, value)
        if (
            isinstance(value, str)
            and any(isinstance(kind, MACField) for kind in kinds)
            and not _is_mac(value)
        ):
            raise self._refused(node, "no MAC address such as 52:54:00:00:00:01")
        return value

    def _addresses(self, node: ast.expr, value: Any) -> None:
        """Only numbers: a name would be asked of a name server."""
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(each, str):
                raise self._refused(node, 'no IP address: write it as text, "10.0.0.2"')
            try:
                ip_address(each)
            except ValueError:
                raise self._refused(node, "no IP address; names are not looked up") from None

    def _literal(self, node: ast.expr, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise self._refused(node, f"nested more than {DEPTH_MAX} deep")
        match node:
            case ast.Constant(str() | bytes() | int() | float() | bool() | None as value):
                return value
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
                return -value
            case ast.List(items):
                return [self._literal(item, depth + 1) for item in items]
            case ast.Tuple(items):
                return tuple(self._literal(item, depth + 1) for item in items)
            case ast.Call() | ast.BinOp():
                return self.packet(node, depth + 1)
            case _:
                raise self._refused(
                    node, "only literal arguments: numbers, strings, bytes, lists of them, layers"
                )


def _kinds(field: Any) -> Iterator[Any]:
    """A field and those in it: of lists, of fields that are there sometimes, or of several kinds."""
    yield field
    within = [getattr(field, "fld", None), getattr(field, "field", None), getattr(field, "dflt", None)]
    within += [each[0] for each in getattr(field, "flds", ())]
    for inner in within:
        if isinstance(inner, Field) or hasattr(inner, "fld"):
            yield from _kinds(inner)


def _is_mac(text: str) -> bool:
    parts = text.split(":")
    return len(parts) == 6 and all(len(part) == 2 and _is_hex(part) for part in parts)


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdefABCDEF" for c in text)
