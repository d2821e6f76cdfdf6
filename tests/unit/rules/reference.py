"""rules.md implemented a second time, from its text alone, with no library and nothing of ours."""

from __future__ import annotations

from typing import Any

MASK = 2**64 - 1


def _rotated(x: int, by: int) -> int:
    return (x << by | x >> 64 - by) & MASK


def _rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        v[0] = (v[0] + v[1]) & MASK
        v[1] = _rotated(v[1], 13) ^ v[0]
        v[0] = _rotated(v[0], 32)
        v[2] = (v[2] + v[3]) & MASK
        v[3] = _rotated(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & MASK
        v[3] = _rotated(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & MASK
        v[1] = _rotated(v[1], 17) ^ v[2]
        v[2] = _rotated(v[2], 32)


def siphash(key: bytes, message: bytes) -> int:
    """SipHash-2-4 of the paper's section 2."""
    low, high = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
    v = [
        low ^ 0x736F6D6570736575,
        high ^ 0x646F72616E646F6D,
        low ^ 0x6C7967656E657261,
        high ^ 0x7465646279746573,
    ]
    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        _rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xFF
    _rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def sip(key: bytes, source: int, letter: str, epoch: int, word: int) -> int:
    message = source.to_bytes(8, "big") + letter.encode() + epoch.to_bytes(7, "big") + word.to_bytes(8, "big")
    return siphash(key, message)


def token(secret: bytes, source: int) -> bytes:
    return sip(secret, source, "K", 0, 0).to_bytes(8, "little") + sip(secret, source, "K", 0, 1).to_bytes(
        8, "little"
    )


def is_reserved(iid: int) -> bool:
    return (
        iid == 0
        or 0x02005EFFFE000000 <= iid <= 0x02005EFFFEFFFFFF
        or 0xFDFFFFFFFFFFFF80 <= iid <= 0xFDFFFFFFFFFFFFFF
    )


def flipped(iid: int) -> int:
    return iid ^ 0x0000000001000080 if is_reserved(iid) else iid


def words_of(rule: str) -> tuple[str, str, dict[str, int]]:
    words, numbers = [], {"choices": 1, "pow": 0, "hop": 0, "low": 0, "inverted": 0}
    for part in rule.split("+"):
        name, _, number = part.partition(":")
        if number:
            numbers[name] = int(number)
        if name not in ("choices", "pow", "hop"):
            words.append(name)
    words = words or ["source"]
    return words[0], words[-1], numbers


def locator32(plane: int, bits28: int) -> int:
    if plane == 0xF:
        bits28 = 0x1000000 + bits28 * 15 // 16
    return plane * 2**28 + bits28


def matching(plane: int, source: int) -> int:
    return flipped(locator32(plane, source >> 32 & 2**28 - 1) << 32 | source & 2**32 - 1)


def accepted(
    rule: str,
    source: int,
    iid: int,
    epoch: int,
    publics: list[bytes],
    secrets: list[bytes],
    position: int | None,
) -> str:
    """The verdict of docs/reference/rules.md."""
    first, second, numbers = words_of(rule)
    plane, locator, tail = iid >> 60, iid >> 32, iid & 0xFFFFFFFF
    if is_reserved(iid):
        return "reserved"
    if first == "match":
        return "kept" if matching(plane, source) == iid else "locator"
    if first in ("low", "inverted"):
        if position is None:
            return "open"
        mask = (1 << numbers[first]) - 1
        wanted = ~position & mask if first == "inverted" else position & mask
        return "kept" if iid & mask == wanted else "tail"
    if first == "content" and position is not None:
        if locator != locator32(plane, position >> 32):
            return "locator"
        if second == "content":
            return "kept" if flipped(locator << 32 | position & 0xFFFFFFFF) == iid else "tail"
    if second in ("random", "content"):
        return "open"
    if plane == 0xF and locator - 0xF0000000 < 0x1000000:
        return "locator"
    keys = {"source": publics, "keyed": [token(secret, source) for secret in secrets]}
    epochs = [e for e in (epoch - 1, epoch, epoch + 1) if e >= 0] if numbers["hop"] else [0]
    said = "locator"
    for e in epochs:
        if first in keys:
            allowed = {
                locator32(plane, sip(key, source, "L", e, choice) >> 36)
                for key in keys[first]
                for choice in range(numbers["choices"])
            }
            if locator not in allowed:
                continue
        for key in keys[second]:
            if numbers["pow"]:
                if sip(key, source, "P", e, locator << 32 | tail) < 2 ** (64 - numbers["pow"]):
                    return "kept"
            elif flipped(locator << 32 | sip(key, source, "T", e, locator << 32) % 2**32) == iid:
                return "kept"
        said = "tail"
    return said


def generated(vector: dict[str, Any]) -> int:
    """The address of a vector of docs/reference/rules-vectors.json."""
    first, second, numbers = words_of(vector["rule"])
    plane, source, free = int(vector["plane"], 16), int(vector["source"], 16), int(vector["free"], 16)
    position, epoch = int(vector["position"], 16), int(vector["epoch"])
    keys = {
        "source": bytes.fromhex(vector["public"]),
        "keyed": token(bytes.fromhex(vector["secret"]), source),
    }
    if first == "match":
        return matching(plane, source)
    if first in ("low", "inverted"):
        mask = (1 << numbers[first]) - 1
        wanted = ~position & mask if first == "inverted" else position & mask
        iid = plane << 60 | free & (2**60 - 1) & ~mask | wanted
        return iid ^ 1 << 59 if is_reserved(iid) else iid
    if first in keys:
        choice = (free >> 32) % numbers["choices"]
        bits28 = sip(keys[first], source, "L", epoch, choice) >> 36
    else:
        bits28 = position >> 32 if first == "content" else free >> 36
    locator = locator32(plane, bits28)
    if numbers["pow"]:
        nonce = free & 0xFFFFFFFF
        while sip(keys[second], source, "P", epoch, locator << 32 | nonce) >> 64 - numbers[
            "pow"
        ] or is_reserved(locator << 32 | nonce):
            nonce = (nonce + 1) % 2**32
        return locator << 32 | nonce
    if second in keys:
        tail = sip(keys[second], source, "T", epoch, locator << 32) & 0xFFFFFFFF
    else:
        tail = (position if second == "content" else free) & 0xFFFFFFFF
    return flipped(locator << 32 | tail)
