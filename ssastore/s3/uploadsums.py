"""Checksums of objects that are made of parts. Pure.

    type         checksum of the object                         algorithms
    COMPOSITE    digest of the parts' digests, "-", their number   CRC32, CRC32C, SHA1, SHA256
    FULL_OBJECT  digest of the object's bytes                   CRC32, CRC32C, CRC64NVME

The second one follows from those of the parts and their sizes, since CRCs are linear.  An upload says at its
beginning which one it wants; each part has its checksum by that algorithm, computed here when the
client sends none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssastore.core.parts import PartOf
from ssastore.s3.checksums import ALGORITHMS, COMPOSITE, FULL_OBJECT, Algorithm, encode_digest
from ssastore.s3.errors import S3Error
from ssastore.s3.names import parse_number
from ssastore.s3.xmlread import NamedPart


@dataclass(frozen=True, slots=True)
class UploadSum:
    """What an upload's object is to be checked by."""

    algorithm: Algorithm
    type: str

    @staticmethod
    def of_headers(headers: Mapping[str, str]) -> UploadSum | None:
        """What CreateMultipartUpload asks for. S3Error InvalidRequest for what S3 does not have."""
        name = headers.get("x-amz-checksum-algorithm", "").upper()
        wanted = headers.get("x-amz-checksum-type", "").upper()
        if not name:
            if wanted:
                message = "x-amz-checksum-type can only be used with the x-amz-checksum-algorithm header."
                raise S3Error("InvalidRequest", message)
            return None
        if name not in ALGORITHMS:
            raise S3Error("InvalidRequest", "Checksum algorithm provided is unsupported.")
        algorithm = ALGORITHMS[name]
        if wanted not in ("", COMPOSITE, FULL_OBJECT):
            raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
        kind = wanted or (FULL_OBJECT if name == "CRC64NVME" else COMPOSITE)
        if (kind == FULL_OBJECT and algorithm.combine is None) or (name, kind) == ("CRC64NVME", COMPOSITE):
            raise S3Error(
                "InvalidRequest",
                f"The {kind} checksum type cannot be used with the {name.lower()} checksum algorithm.",
            )
        return UploadSum(algorithm, kind)

    @staticmethod
    def of_upload(extra: Mapping[str, Any]) -> UploadSum | None:
        """What an upload's record says; None when the upload has no algorithm."""
        known = extra["object"]
        names = list(known.get("checksum", ()))
        return UploadSum(ALGORITHMS[names[0]], known["checksum_type"]) if names else None

    def kept(self) -> dict[str, Any]:
        """What the upload's record keeps for ``of_upload``: as with the object, the digest not yet known."""
        return {"checksum": {self.algorithm.name: ""}, "checksum_type": self.type}

    def headers(self) -> dict[str, str]:
        """Of the answer to CreateMultipartUpload."""
        return {"x-amz-checksum-algorithm": self.algorithm.name, "x-amz-checksum-type": self.type}

    def of_parts(self, parts: Sequence[PartOf]) -> bytes:
        """The digest of an object of these parts, which all have their checksums."""
        if self.type == FULL_OBJECT:
            assert self.algorithm.combine is not None
            digest = parts[0].checksum
            for part in parts[1:]:
                digest = self.algorithm.combine(digest, part.checksum, part.size)
            return digest
        hasher = self.algorithm.new()
        for part in parts:
            hasher.update(part.checksum)
        return hasher.digest()

    def text(self, digest: bytes, count: int) -> str:
        """The checksum of an object of ``count`` parts as S3 writes it."""
        text = encode_digest(digest)
        return text if self.type == FULL_OBJECT else f"{text}-{count}"


def judge_completion(
    headers: Mapping[str, str], named: Sequence[NamedPart], extra: Mapping[str, Any], parts: Sequence[PartOf]
) -> dict[str, Any]:
    """What is kept with an object that is completed of parts, when its checksums are as the client says.

    Args:
        headers: of the request.
        named: the parts as the request names them.
        extra: of the upload's record.
        parts: as they were recorded, in the same order.

    Raises:
        S3Error: BadDigest for the object's checksum, InvalidPart for a part's, InvalidRequest for
            what contradicts the upload.
    """
    _check_size(headers, parts)
    wanted = UploadSum.of_upload(extra)
    said = {name: headers[one.header] for name, one in ALGORITHMS.items() if one.header in headers}
    if wanted is None:
        if said:
            raise S3Error("InvalidRequest", "The upload was created without a checksum algorithm.")
        return {}
    name = wanted.algorithm.name
    if said.keys() - {name}:
        message = f"Checksum Type mismatch occurred, expected checksum Type: {name.lower()}"
        raise S3Error("InvalidRequest", message)
    if headers.get("x-amz-checksum-type", wanted.type).upper() != wanted.type:
        message = f"The upload was created using the {wanted.type} checksum mode."
        raise S3Error("InvalidRequest", message)
    for one, part in zip(named, parts, strict=True):
        if one.checksums.get(name, encode_digest(part.checksum)) != encode_digest(part.checksum):
            raise S3Error("InvalidPart", f"Part {one.number} has another checksum.", PartNumber=one.number)
    digest = wanted.of_parts(parts)
    text = wanted.text(digest, len(parts))
    if said and said[name].strip() not in (text, encode_digest(digest)):
        raise S3Error("BadDigest", f"The {name} you specified did not match the calculated checksum.")
    return {"checksum": {name: text}, "checksum_type": wanted.type}


def _check_size(headers: Mapping[str, str], parts: Sequence[PartOf]) -> None:
    size = headers.get("x-amz-mp-object-size")
    if size is None:
        return
    if parse_number("x-amz-mp-object-size", size, least=0) != sum(part.size for part in parts):
        message = "The provided 'x-amz-mp-object-size' header does not match what was computed."
        raise S3Error("InvalidRequest", message)
