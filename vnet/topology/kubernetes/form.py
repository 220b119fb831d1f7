"""The form of the manifests as one table of shapes: every key that counts, and what it may hold.

As the API server reads them: a key with nothing behind it is one that is not given, and keys that a
NetworkPolicy's spec does not have are errors. Of everything else only what counts here is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from vnet.topology import values
from vnet.topology.kubernetes.objects import Operator
from vnet.topology.model import IPNetwork
from vnet.topology.reading import Reading, quoted
from vnet.topology.shape import (
    Definitions,
    Entry,
    Field,
    JsonObject,
    ListOf,
    MapOf,
    Read,
    Record,
    Refused,
    Word,
)
from vnet.topology.yaml import MapNode, Node, Scalar

PORT_MAX = 65535
PROTOCOLS = ("TCP", "UDP", "SCTP")
_TEXT = {"type": "string"}


@dataclass(frozen=True, slots=True)
class Section:
    """A map with known keys; `is_open` ones may have others, which mean nothing here.

    What is read is complete: an entry in which something is broken or missing is none.
    """

    record: Record
    is_open: bool = False

    def read(self, node: Node, path: str, reading: Reading) -> Read[Entry] | None:
        if isinstance(node, Scalar) and node.value is None:
            hint = "write {} for an empty one" if not self.record.fields[0].required else ""
            reading.fault(reading.at(node), path, f"expected {self.record.title}, found nothing", hint)
            return None
        if isinstance(node, MapNode):
            node = replace(node, entries=tuple(pair for pair in node.entries if self._counts(*pair)))
        read = self.record.read(node, path, reading)
        is_missing = any(each.required and not read.value.given(each) for each in self.record.fields)
        return None if read.value.broken or is_missing else read

    def _counts(self, key: Scalar, value: Node) -> bool:
        if isinstance(value, Scalar) and value.value is None:
            return False
        return not self.is_open or key.text in {each.name for each in self.record.fields}

    def schema(self, definitions: Definitions) -> JsonObject:
        return self.record.schema(definitions)


# ---- scalars ---------------------------------------------------------------------------------

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_LABEL_MAX = 63
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_PORT_NAME_MAX = 15
"""The length of a service name (RFC 6335, section 5.1)."""


def _name(scalar: Scalar) -> str:
    if not _NAME.fullmatch(values.string(scalar)):
        raise Refused
    return scalar.text


def _key(scalar: Scalar) -> str:
    if not _LABEL_KEY.fullmatch(scalar.text):
        raise Refused
    return scalar.text


def _value(scalar: Scalar) -> str:
    if not _LABEL_VALUE.fullmatch(values.string(scalar)) or len(scalar.text) > _LABEL_MAX:
        raise Refused
    return scalar.text


def _number(scalar: Scalar) -> int:
    if not isinstance(scalar.value, int) or not re.fullmatch(r"[1-9][0-9]*", scalar.text):
        raise Refused
    if scalar.value > PORT_MAX:
        raise Refused
    return scalar.value


def _port(scalar: Scalar) -> int | str:
    if not isinstance(scalar.value, str):
        return _number(scalar)
    if scalar.text.isdecimal():
        raise Refused(f"{quoted(scalar.text)} is text, and no name of a port", "remove the quotes")
    if not _PORT_NAME.fullmatch(scalar.text) or len(scalar.text) > _PORT_NAME_MAX:
        raise Refused
    return scalar.text


def _cidr(scalar: Scalar) -> IPNetwork:
    """As the API server reads it: bits behind the prefix are ignored."""
    if not re.fullmatch(values.CIDR_PATTERN, scalar.text):
        raise Refused(hint="add the length of the prefix" if values.is_address(scalar.text) else "")
    try:
        return ip_network(scalar.text, strict=False)
    except ValueError:
        raise Refused from None


def _address(scalar: Scalar) -> IPv4Address | IPv6Address:
    if not values.is_address(scalar.text) or "%" in scalar.text:
        raise Refused
    return ip_address(scalar.text)


WORD = Word("text", values.string, _TEXT)
NAME_WORD = Word("a name of lowercase letters, digits, - and .", _name, _TEXT)
_KEY = Word("the name of a label such as app or example.com/app", _key, _TEXT)
_LABEL = Word(f"a label's value (letters, digits, -, _ and ., at most {_LABEL_MAX})", _value, _TEXT)
_LABELS = MapOf(_KEY, _LABEL, "a map of labels")
_PORT = Word(f"a port from 1 to {PORT_MAX} or the name of one", _port, _TEXT)
_NUMBER = Word(f"a port from 1 to {PORT_MAX}", _number, _TEXT)
_PROTOCOL = Word("TCP, UDP or SCTP", values.one_of({name: name for name in PROTOCOLS}), _TEXT)
_CIDR = Word("a CIDR such as 10.0.0.0/8", _cidr, _TEXT)
_ADDRESS = Word("an IP address", _address, _TEXT)
_BOOLEAN = Word("true or false", values.boolean, _TEXT)

# ---- every object ----------------------------------------------------------------------------

NAME = Field("name", NAME_WORD, "the object's name", required=True)
NAMESPACE = Field("namespace", NAME_WORD, "its namespace; default if left out", default="default")
LABELS = Field("labels", _LABELS, "its labels")
METADATA = Section(Record("metadata", (NAME, NAMESPACE, LABELS)), is_open=True)
OBJECT_METADATA = Field("metadata", METADATA, "name, namespace and labels", required=True)
API_VERSION = Field("apiVersion", WORD, "such as networking.k8s.io/v1", required=True)
KIND = Field("kind", WORD, "such as NetworkPolicy", required=True)
HEAD = Section(Record("a manifest", (API_VERSION, KIND)), is_open=True)

# ---- NetworkPolicy ---------------------------------------------------------------------------

KEY = Field("key", _KEY, "the label that it looks at", required=True)
OPERATOR = Field(
    "operator",
    Word("In, NotIn, Exists or DoesNotExist", values.one_of({each.value: each for each in Operator}), _TEXT),
    "In, NotIn, Exists or DoesNotExist",
    required=True,
)
VALUES = Field("values", ListOf(_LABEL, "a list of values"), "the values of In and NotIn")
EXPRESSION = Section(Record("an expression", (KEY, OPERATOR, VALUES)))
MATCH_LABELS = Field("matchLabels", _LABELS, "labels with these values")
MATCH_EXPRESSIONS = Field("matchExpressions", ListOf(EXPRESSION, "a list of expressions"), "all must hold")
SELECTOR = Section(Record("a label selector", (MATCH_LABELS, MATCH_EXPRESSIONS)))

CIDR = Field("cidr", _CIDR, "the addresses", required=True)
EXCEPT = Field("except", ListOf(_CIDR, "a list of CIDRs"), "those of them that are not meant")
IP_BLOCK_SECTION = Section(Record("an ipBlock", (CIDR, EXCEPT)))
POD_SELECTOR = Field("podSelector", SELECTOR, "pods by their labels")
NAMESPACE_SELECTOR = Field("namespaceSelector", SELECTOR, "pods by the labels of their namespace")
IP_BLOCK = Field("ipBlock", IP_BLOCK_SECTION, "addresses")
PEER = Section(Record("a peer", (POD_SELECTOR, NAMESPACE_SELECTOR, IP_BLOCK)))

PROTOCOL = Field("protocol", _PROTOCOL, "TCP if left out", default="TCP")
PORT = Field("port", _PORT, "a number or the name of a container's port; all if left out")
END_PORT = Field("endPort", _NUMBER, "the last port of a range that begins at port")
POLICY_PORT = Section(Record("a port", (PROTOCOL, PORT, END_PORT)))

FROM = Field("from", ListOf(PEER, "a list of peers"), "who may connect; everybody if left out")
TO = Field("to", ListOf(PEER, "a list of peers"), "to whom it may connect; everybody if left out")
PORTS = Field("ports", ListOf(POLICY_PORT, "a list of ports"), "all if left out")
INGRESS_RULE = Section(
    Record("an ingress rule", (FROM, PORTS), misplaced={"to": '"to" belongs into an egress rule'})
)
EGRESS_RULE = Section(
    Record("an egress rule", (TO, PORTS), misplaced={"from": '"from" belongs into an ingress rule'})
)
INGRESS = Field("ingress", ListOf(INGRESS_RULE, "a list of rules"), "what may come in")
EGRESS = Field("egress", ListOf(EGRESS_RULE, "a list of rules"), "what may go out")
_TYPE = Word("Ingress or Egress", values.one_of({name: name for name in ("Ingress", "Egress")}), _TEXT)
POLICY_TYPES = Field("policyTypes", ListOf(_TYPE, "a list of types"), "the directions it speaks of")
SPEC = Field(
    "spec",
    Section(Record("a NetworkPolicy's spec", (POD_SELECTOR, POLICY_TYPES, INGRESS, EGRESS))),
    "whom it selects, and what they may do",
    required=True,
)
NETWORK_POLICY = Section(Record("a NetworkPolicy", (OBJECT_METADATA, SPEC)), is_open=True)

# ---- Pod, Namespace, List --------------------------------------------------------------------

PORT_NAME = Field("name", WORD, "the port's name")
CONTAINER_PORT = Field("containerPort", _NUMBER, "its number", required=True)
CONTAINER_PORT_SECTION = Section(
    Record("a container's port", (PORT_NAME, CONTAINER_PORT, PROTOCOL)), is_open=True
)
CONTAINER_PORTS = Field("ports", ListOf(CONTAINER_PORT_SECTION, "a list of ports"), "the ports it serves")
RESTART_POLICY = Field("restartPolicy", WORD, "Always makes an init container one that goes on running")
CONTAINER = Section(Record("a container", (CONTAINER_PORTS, RESTART_POLICY)), is_open=True)
CONTAINERS = Field("containers", ListOf(CONTAINER, "a list of containers"), "what runs in it")
INIT_CONTAINERS = Field("initContainers", ListOf(CONTAINER, "a list of containers"), "what runs first")
HOST_NETWORK = Field("hostNetwork", _BOOLEAN, "whether it has the node's own network", default=False)
POD_SPEC = Field(
    "spec",
    Section(Record("a Pod's spec", (CONTAINERS, INIT_CONTAINERS, HOST_NETWORK)), is_open=True),
    "its containers",
)
IP = Field("ip", _ADDRESS, "an address", required=True)
PHASE = Field("phase", WORD, "Succeeded and Failed pods have ended")
POD_IP = Field("podIP", _ADDRESS, "its address")
POD_IPS = Field(
    "podIPs", ListOf(Section(Record("an address", (IP,)), is_open=True), "a list of addresses"), "all of them"
)
POD_STATUS = Field(
    "status", Section(Record("a Pod's status", (PHASE, POD_IP, POD_IPS)), is_open=True), "where it runs"
)
POD = Section(Record("a Pod", (OBJECT_METADATA, POD_SPEC, POD_STATUS)), is_open=True)
NAMESPACE_OBJECT = Section(Record("a Namespace", (OBJECT_METADATA,)), is_open=True)
