"""AES-256-GCM as the standard has it, our two forms of it byte by byte, and what neither opens."""

from __future__ import annotations

import hmac
from itertools import count

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ssastore.core.ciphers import CIPHER_BYTES, Piece
from ssastore.errors import CorruptObject
from ssastore.s3.ciphers import KEY_BYTES, DataCipher, unwrap, wrap

KEY = bytes(range(KEY_BYTES))


class Counted:
    """Randomness that counts: bytes of 0, then of 1, and so on."""

    def __init__(self) -> None:
        self._next = count()

    def bytes(self, size: int) -> bytes:
        return bytes([next(self._next)]) * size

    def below(self, bound: int) -> int:
        return next(self._next) % bound


def test_the_library_is_aes_gcm() -> None:
    """Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation" (2005), appendix B."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    encrypted = AESGCM(key).encrypt(
        bytes.fromhex("cafebabefacedbaddecaf888"),
        plain,
        bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
    )
    assert encrypted.hex() == (
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 100_003])
def test_an_encrypted_piece_opens(size: int) -> None:
    cipher, plain = DataCipher(KEY, Counted()), bytes(range(256)) * (size // 256) + bytes(size % 256)
    encrypted = cipher.encrypt(Piece(3, 7), memoryview(plain))
    assert len(encrypted) == size + CIPHER_BYTES and (size < 16 or plain not in encrypted)
    assert cipher.decrypt(Piece(3, 7), memoryview(encrypted)) == plain
    assert cipher.encrypt(Piece(3, 7), plain) != encrypted, "a nonce is never used twice"


def test_form_of_a_piece() -> None:
    """nonce, ciphertext, tag; part (2 bytes) and index (4) are authenticated."""
    nonce, name = bytes(12), b"ssastore piece 1" + bytes.fromhex("0003 00000007")
    assert DataCipher(KEY, Counted()).encrypt(Piece(3, 7), b"abc") == nonce + AESGCM(KEY).encrypt(
        nonce, b"abc", name
    )


@pytest.mark.parametrize("piece", [Piece(3, 6), Piece(4, 7), Piece(0, 7), Piece(7, 3)])
def test_a_piece_opens_in_no_other_place(piece: Piece) -> None:
    cipher = DataCipher(KEY, Counted())
    with pytest.raises(CorruptObject):
        cipher.decrypt(piece, cipher.encrypt(Piece(3, 7), b"abc"))


@pytest.mark.parametrize("at", [0, 11, 12, 14, 15, 30, -1])
def test_a_changed_byte_is_noticed(at: int) -> None:
    cipher = DataCipher(KEY, Counted())
    encrypted = bytearray(cipher.encrypt(Piece(0, 0), b"abc"))
    encrypted[at] ^= 1
    with pytest.raises(CorruptObject):
        cipher.decrypt(Piece(0, 0), bytes(encrypted))


@pytest.mark.parametrize("size", [0, 1, 12, 27, 28, 30])
def test_a_piece_that_is_cut_short_is_noticed(size: int) -> None:
    cipher = DataCipher(KEY, Counted())
    encrypted = cipher.encrypt(Piece(0, 0), b"abc")
    with pytest.raises(CorruptObject):
        cipher.decrypt(Piece(0, 0), encrypted[:size])


def test_a_wrapped_key_comes_back_for_its_name_alone() -> None:
    data_key = bytes(32)
    wrapped = wrap(KEY, data_key, b"S3 bucket/key", Counted())
    assert unwrap(KEY, wrapped, b"S3 bucket/key") == data_key and data_key not in wrapped[32:]
    assert unwrap(KEY, wrapped, b"S3 bucket/other") is None
    assert unwrap(KEY, wrapped, b"C bucket/key") is None
    assert unwrap(bytes(32), wrapped, b"S3 bucket/key") is None
    for at in (0, 31, 32, 79):
        changed = bytearray(wrapped)
        changed[at] ^= 128
        assert unwrap(KEY, bytes(changed), b"S3 bucket/key") is None
    for size in (0, 31, 32, 40, 79):
        assert unwrap(KEY, wrapped[:size], b"S3 bucket/key") is None


def test_form_of_a_wrapped_key() -> None:
    salt = bytes(32)
    derived = hmac.digest(KEY, b"ssastore wrap 1" + salt, "sha256")
    expected = salt + AESGCM(derived).encrypt(bytes(12), b"d" * 32, b"name")
    assert wrap(KEY, b"d" * 32, b"name", Counted()) == expected
