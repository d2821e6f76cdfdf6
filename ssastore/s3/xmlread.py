"""The XML of S3 requests, read. Standard library only; ``xml`` writes responses.

Reading is expat with everything dangerous refused: no DOCTYPE (so no entities, no
fetches, no blow-up), UTF-8 only, bounds on bytes, depth and elements.  Long bodies have two
levels, fields and rows of fields, and are read without building a tree; configurations are trees.
Elements that are not known are ignored, as in S3, wherever that cannot change the
meaning.  The namespace may be missing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from xml.parsers import expat

from ssastore.core.demand import Demand
from ssastore.limits import LIST_KEYS_MAX, PARTS_MAX, XML_BYTES_MAX, XML_DEPTH_MAX, XML_ELEMENTS_MAX
from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_number, parse_time


class _Bounds(ABC):
    """Parses one body with everything dangerous refused; a subclass says what to make of it."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._depth = 0
        self._elements = 0
        self._text: list[str] = []

    def parse(self, body: bytes) -> None:
        """Raises S3Error MalformedXML."""
        if len(body) > XML_BYTES_MAX:
            raise S3Error("MalformedXML", f"The body must not be above {XML_BYTES_MAX} bytes.")
        # Expat finds UTF-16 by itself, whatever it is told; any UTF-16 document of ours would have NULs.
        if b"\0" in body:
            raise S3Error("MalformedXML", "The body must be UTF-8.")
        # Each attribute needs an "=", and expat reads all of an element's before it asks us. No body of
        # S3 has many; the bound leaves room for the "=" of base64.
        if body.count(b"=") > XML_ELEMENTS_MAX:
            raise S3Error("MalformedXML", "The body has too many attributes.")
        parser = expat.ParserCreate("utf-8")  # overrides what the document declares, which is checked below
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start_element
        parser.EndElementHandler = self._end_element
        parser.CharacterDataHandler = self._text.append
        try:
            parser.Parse(body, True)
        except expat.ExpatError:
            raise S3Error("MalformedXML") from None

    @abstractmethod
    def begin(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins; ``name`` is without its prefix."""

    @abstractmethod
    def end(self, name: str, text: str) -> None:
        """It ends; ``text`` is what came after the last tag."""

    def _start_element(self, tag: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > XML_ELEMENTS_MAX or self._depth == XML_DEPTH_MAX:
            raise S3Error("MalformedXML", "The body has too many or too deeply nested elements.")
        name = tag.rpartition(":")[2]
        if not self._depth and name != self._root:
            raise S3Error("MalformedXML", f"The body must be a {self._root}.")
        self._depth += 1
        self._text.clear()
        self.begin(name, attributes)

    def _end_element(self, tag: str) -> None:
        self._depth -= 1
        self.end(tag.rpartition(":")[2], "".join(self._text))
        self._text.clear()

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8"):
            raise S3Error("MalformedXML", "The body must be UTF-8.")

    def _doctype(self, *parts: object) -> None:
        raise S3Error("MalformedXML", "The body must not have a DOCTYPE.")


class Element:
    """An element of a small document: its text, and the elements in it in order."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = {key.rpartition(":")[2]: value for key, value in attributes.items()}
        self.children: list[Element] = []
        self.text = ""

    def all(self, name: str) -> list[Element]:
        """The elements of a name directly in this one."""
        return [child for child in self.children if child.name == name]

    def one(self, name: str) -> Element | None:
        """The only element of a name directly in this one; None when there is none. S3Error MalformedXML."""
        found = self.all(name)
        if len(found) > 1:
            raise S3Error("MalformedXML", f"{name} was given twice.")
        return found[0] if found else None

    def value(self, name: str) -> str | None:
        """The text of the only element of a name, without white space around it. S3Error MalformedXML."""
        found = self.one(name)
        if found is None:
            return None
        if found.children:
            raise S3Error("MalformedXML", f"{name} must be text.")
        return found.text.strip()


class _Tree(_Bounds):
    """Makes a tree of a body."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._open: list[Element] = []
        self.root = Element(root, {})

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        element = Element(name, attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, name: str, text: str) -> None:
        element = self._open.pop()
        if not element.children:
            element.text = text


def read_tree(body: bytes, root: str) -> Element:
    """A configuration as a tree. S3Error MalformedXML, also when it is no ``root``."""
    tree = _Tree(root)
    tree.parse(body)
    return tree.root


class _Reader(_Bounds):
    """Reads one body of up to a thousand rows: the fields of its root, and the rows named ``row``."""

    def __init__(self, *, root: str, row: str) -> None:
        super().__init__(root)
        self._row = row
        self._path: list[str] = []
        self._is_leaf = True
        self.fields: dict[str, str] = {}
        self.rows: list[dict[str, str]] = []

    def read(self, body: bytes) -> _Reader:
        self.parse(body)
        return self

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if len(self._path) == 2 and name == self._row:
            self.rows.append({})
        self._is_leaf = True

    def end(self, name: str, text: str) -> None:
        self._path.pop()
        if len(self._path) == 1 and name != self._row and self._is_leaf:
            self._keep(self.fields, name, text)
        elif len(self._path) == 2 and self._path[1] == self._row:
            if not self._is_leaf:  # to keep the half of a key or to drop a condition would change the meaning
                raise S3Error("MalformedXML", f"{name} must be text.")
            self._keep(self.rows[-1], name, text)
        self._is_leaf = False

    def _keep(self, fields: dict[str, str], name: str, text: str) -> None:
        if name in fields:
            raise S3Error("MalformedXML", f"{name} was given twice.")
        fields[name] = text


_CHECKSUM = "Checksum"


@dataclass(frozen=True, slots=True)
class NamedPart:
    """One part that CompleteMultipartUpload names."""

    number: int
    etag: str
    "Without quotes."
    checksums: dict[str, str]
    "Base64 by algorithm."


def parse_complete_upload(body: bytes) -> list[NamedPart]:
    """The parts of a CompleteMultipartUpload, numbers ascending.

    Raises:
        S3Error: MalformedXML (also for no parts at all), InvalidArgument for a number outside 1 to
            10,000, InvalidPartOrder.
    """
    parts: list[NamedPart] = []
    for row in _Reader(root="CompleteMultipartUpload", row="Part").read(body).rows:
        if "PartNumber" not in row or "ETag" not in row:
            raise S3Error("MalformedXML", "A Part needs PartNumber and ETag.")
        number = parse_number("PartNumber", row["PartNumber"].strip(), least=1, most=PARTS_MAX)
        if parts and number <= parts[-1].number:
            raise S3Error("InvalidPartOrder")
        checksums = {
            name.removeprefix(_CHECKSUM): text.strip()
            for name, text in row.items()
            if name.startswith(_CHECKSUM)
        }
        parts.append(NamedPart(number, row["ETag"].strip().strip('"'), checksums))
    if not parts:
        raise S3Error("MalformedXML", "At least one Part is needed.")
    return parts


@dataclass(frozen=True, slots=True)
class DeleteEntry:
    """One object that DeleteObjects names."""

    key: str
    version_id: str | None
    demand: Demand
    "Delete only if the object is so; an ETag of ``*`` is any."


def parse_delete(body: bytes) -> tuple[bool, list[DeleteEntry]]:
    """Whether DeleteObjects is quiet, and what to delete: 1 to 1,000 entries, repetitions allowed.

    Raises:
        S3Error: MalformedXML, or InvalidArgument for a condition that cannot be read.
    """
    reader = _Reader(root="Delete", row="Object").read(body)
    quiet = reader.fields.get("Quiet", "false").strip().lower()
    if quiet not in ("true", "false"):
        raise S3Error("MalformedXML", "Quiet must be true or false.")
    if not 1 <= len(reader.rows) <= LIST_KEYS_MAX:
        raise S3Error("MalformedXML", f"Between 1 and {LIST_KEYS_MAX} objects can be named.")
    return quiet == "true", [_delete_entry(row) for row in reader.rows]


def _delete_entry(row: dict[str, str]) -> DeleteEntry:
    if not row.get("Key"):
        raise S3Error("MalformedXML", "An Object needs a Key.")
    etag, modified, size = row.get("ETag"), row.get("LastModifiedTime"), row.get("Size")
    demand = Demand(
        if_match=None if etag is None else etag.strip().strip('"'),
        modified_s=None if modified is None else parse_time("LastModifiedTime", modified) // 1000,
        size=None if size is None else parse_number("Size", size.strip(), least=0),
    )
    return DeleteEntry(row["Key"], row.get("VersionId") or None, demand)


def parse_bucket_configuration(body: bytes) -> str | None:
    """The location that CreateBucket asks for; None for no body, or none named in it."""
    if not body.strip():
        return None
    reader = _Reader(root="CreateBucketConfiguration", row="").read(body)
    return reader.fields.get("LocationConstraint", "").strip() or None
