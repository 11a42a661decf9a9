"""XMLBIF 0.3 (.xmlbif, .xml): the interchange format in XML.

Source: F. Cozman, The Interchange Format for Bayesian Networks, XMLBIF version 0.3 (1998). In a
TABLE the variable of FOR varies fastest and the first GIVEN slowest.
"""

import re
from collections.abc import Hashable, Iterable
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape

import numpy as np

from ..tables import Factor, Tables
from .text import Draft, distinct, number, numbers, shape_of, texts

_CHILDREN: dict[str, tuple[str, ...]] = {
    "": ("BIF",),
    "BIF": ("NETWORK",),
    "NETWORK": ("NAME", "PROPERTY", "VARIABLE", "DEFINITION"),
    "VARIABLE": ("NAME", "OUTCOME", "VALUE", "PROPERTY"),
    "DEFINITION": ("FOR", "GIVEN", "TABLE", "PROPERTY"),
}
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Element:
    def __init__(self, tag: str, attributes: dict[str, str], line: int) -> None:
        self.tag, self.attributes, self.line = tag, attributes, line
        self.pieces, self.children = list[str](), list[_Element]()
        self.text = ""

    def all(self, *tags: str) -> list["_Element"]:
        return [child for child in self.children if child.tag in tags]

    def error(self, message: str) -> ValueError:
        return ValueError(f"line {self.line}: {message}")


def read_xmlbif(text: str) -> Draft:
    """What an XMLBIF file says. Its usual inline DTD is read; entities are refused.

    Raises:
        ValueError: names the line.
    """
    root = _parsed(text)
    bif = root.children[0]
    if len(bif.children) != 1:
        raise bif.error(f"a BIF element holds one NETWORK; got {len(bif.children)}")
    network = bif.children[0]
    title = network.all("NAME")
    states: dict[Hashable, tuple[str, ...]] = {}
    for element in network.all("VARIABLE"):
        kind = element.attributes.get("TYPE", "nature")
        if kind != "nature":
            raise element.error(f"variables of type {kind} are not read; only those of nature are")
        names = element.all("NAME")
        if len(names) != 1 or not names[0].text:
            raise element.error("a VARIABLE has one NAME")
        variable = names[0].text
        if variable in states:
            raise element.error(f"the variable {variable} is declared twice")
        listed = [outcome.text for outcome in element.all("OUTCOME", "VALUE")]
        if not listed:
            raise element.error(f"the variable {variable} has no OUTCOME")
        try:
            states[variable] = distinct(listed, len(listed), variable)
        except ValueError as error:
            raise element.error(str(error)) from None
    if not states:
        raise network.error("the file declares no VARIABLE")
    found: dict[Hashable, Factor] = {}
    for element in network.all("DEFINITION"):
        factor = _definition(element, states)
        if factor.variables[0] in found:
            raise element.error(f"{factor.variables[0]} has two definitions")
        found[factor.variables[0]] = factor
    missing = [str(variable) for variable in states if variable not in found]
    if missing:
        raise network.error(f"no DEFINITION with a table for {', '.join(missing[:8])}")
    factors = [found[variable] for variable in states]
    return Draft(title[0].text if title else "", states, factors)


def _definition(element: _Element, states: dict[Hashable, tuple[str, ...]]) -> Factor:
    children, tables = element.all("FOR"), element.all("TABLE")
    if len(children) != 1:
        raise element.error(f"a DEFINITION is FOR one variable; got {len(children)}")
    child, parents = children[0].text, [given.text for given in element.all("GIVEN")]
    if len(tables) != 1:
        raise element.error(f"the definition of {child} has {len(tables)} tables; expected one")
    try:
        shape = shape_of(child, parents, states)
        given = [number(token) for token in tables[0].text.split()]
    except ValueError as error:
        raise tables[0].error(f"the definition of {child}: {error}") from None
    if len(given) != np.prod(shape):
        raise tables[0].error(
            f"the table of {child} has {len(given)} numbers; expected {np.prod(shape)}"
        )
    return Factor((child, *parents), np.moveaxis(np.reshape(given, (*shape[1:], shape[0])), -1, 0))


def _parsed(text: str) -> _Element:
    """The elements of the file, each known and where it may be; their text without outer space."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    stack = [_Element("", {}, 1)]

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = _Element(tag, attributes, parser.CurrentLineNumber)
        above = stack[-1]
        if tag not in _CHILDREN.get(above.tag, ()):
            raise element.error(f"the element {tag} is not known in {above.tag or 'XMLBIF'}")
        above.children.append(element)
        stack.append(element)

    def characters(data: str) -> None:
        stack[-1].pieces.append(data)

    def end(tag: str) -> None:
        element = stack.pop()
        element.text = "".join(element.pieces).strip()
        if tag in _CHILDREN and element.text:
            raise element.error(f"the text {element.text[:40]!r} stands loose in {tag}")

    def refuse(*_: Any) -> Any:
        raise ValueError(
            f"line {parser.CurrentLineNumber}: XML entities are refused; write the text itself"
        )

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler = parser.SkippedEntityHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    # The text is decoded already, so what its declaration says of an encoding no longer holds.
    body = re.sub(r"^(\s*<\?xml[^>]*?)\s+encoding\s*=\s*(\"[^\"]*\"|'[^']*')", r"\1", text)
    try:
        parser.Parse(body.encode(), True)
    except expat.ExpatError as error:
        raise ValueError(f"line {error.lineno}: not XML: {expat.ErrorString(error.code)}") from None
    return stack[0]


def write_xmlbif(tables: Tables) -> Iterable[str]:
    """The lines of an XMLBIF file.

    Raises:
        ValueError: a name that the format cannot hold.
    """
    names, states = texts(tables)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<BIF VERSION="0.3">'
    yield "<NETWORK>"
    yield f"<NAME>{_escaped(tables.name or 'unknown')}</NAME>"
    for variable, name in names.items():
        yield '<VARIABLE TYPE="nature">'
        yield f"  <NAME>{_escaped(name)}</NAME>"
        yield from (f"  <OUTCOME>{_escaped(state)}</OUTCOME>" for state in states[variable])
        yield "</VARIABLE>"
    for (child, *parents), values in tables.factors:
        yield "<DEFINITION>"
        yield f"  <FOR>{_escaped(names[child])}</FOR>"
        yield from (f"  <GIVEN>{_escaped(names[parent])}</GIVEN>" for parent in parents)
        yield f"  <TABLE>{numbers(np.moveaxis(values, 0, -1), ' ')}</TABLE>"
        yield "</DEFINITION>"
    yield "</NETWORK>"
    yield "</BIF>"


def _escaped(name: str) -> str:
    if name != name.strip() or not name or _NOT_XML.search(name):
        raise ValueError(
            f".xmlbif files cannot hold the name {name!r}: it is empty, has spaces at its ends or "
            "characters that XML does not know; rename it"
        )
    return escape(name, {"\r": "&#13;"})
