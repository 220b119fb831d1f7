"""XML of strangers as a tree that knows its lines: no document types, no entities, bounded in every way.

Source: https://www.w3.org/TR/xml/. What is refused is what entity bombs and external entities are made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from xml.parsers import expat

from vnet.base.errors import Fault, InputError
from vnet.base.source import Location

SIZE_MAX_BYTES = 8 << 20
_DEPTH_MAX = 64
_ELEMENTS_MAX = 200_000


@dataclass(slots=True)
class Element:
    """One element. Names are without their namespace's prefix; `text` is its own, without blanks around."""

    tag: str
    attributes: Mapping[str, str]
    at: Location
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, path: str) -> Iterator[Element]:
        """Those at a path such as `devices/disk`."""
        head, _, rest = path.partition("/")
        for child in self.children:
            if child.tag == head:
                yield from child.all(rest) if rest else (child,)

    def first(self, path: str) -> Element | None:
        """The first one at a path; None if there is none."""
        return next(self.all(path), None)

    def text_of(self, path: str, default: str = "") -> str:
        """The text of the first one at a path."""
        found = self.first(path)
        return default if found is None else found.text

    def attribute(self, path: str, name: str, default: str = "") -> str:
        """An attribute of the first one at a path; of this one if the path is empty."""
        found = self.first(path) if path else self
        return default if found is None else found.attributes.get(name, default)


class _Refused(Exception):
    pass


def parse(text: str, file: str) -> Element:
    """The root of a document. Raises InputError with the line for what is no XML, or none that is read."""
    if len(text) > SIZE_MAX_BYTES:
        raise InputError(f"{file}: more than {SIZE_MAX_BYTES >> 20} MiB: that is no description of machines")
    reader = _Reader(file)
    try:
        reader.parser.Parse(text.removeprefix("\ufeff"), True)
    except expat.ExpatError as error:
        where = Location(file, error.lineno, error.offset + 1)
        problem = f"this is no XML: {expat.errors.messages.get(error.code, error)}"
        raise _error(where, problem, text) from None
    except _Refused as refused:
        raise _error(reader.here(), str(refused), text) from None
    assert reader.root is not None, "expat finds a root or raises"
    return reader.root


def _error(where: Location, problem: str, text: str) -> InputError:
    return InputError([shown(Fault(where, "xml", problem), text)])


def fault(element: Element, problem: str, hint: str = "") -> Fault:
    """Something wrong with an element."""
    return Fault(element.at, element.tag, problem, hint)


def shown(fault: Fault, text: str) -> Fault:
    """A fault with the line of the text that it is about."""
    lines = text.splitlines()
    line = lines[fault.where.line - 1] if 0 < fault.where.line <= len(lines) else ""
    return replace(fault, excerpt="".join(c if c.isprintable() else " " for c in line[:200]).rstrip())


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self._open: list[Element] = []
        self._count = 0
        self.root: Element | None = None
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse

    def here(self) -> Location:
        return Location(self._file, self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1)

    def _refuse(self, *given: object) -> None:
        raise _Refused("document types and entities are not read: remove the <!DOCTYPE ...>")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= _DEPTH_MAX or self._count > _ELEMENTS_MAX:
            raise _Refused("too many elements, or too deep in each other")
        local = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        element = Element(name.rpartition(" ")[2], local, self.here())
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def _characters(self, text: str) -> None:
        self._open[-1].text += text

    def _end(self, name: str) -> None:
        element = self._open.pop()
        element.text = element.text.strip()
