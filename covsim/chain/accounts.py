"""Accounts: ed25519 keys made from a seed and a name. Whoever knows the scenario can sign for everybody in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Account:
    """Who signs. `public` is the key in hex, by which the chain knows the account."""

    name: str
    public: str
    _key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def derive(cls, seed: int, name: str) -> Self:
        """The account of this name under this seed; always the same."""
        secret = hashlib.sha256(f"covsim account\x1f{seed}\x1f{name}".encode()).digest()
        key = Ed25519PrivateKey.from_private_bytes(secret)
        return cls(name, key.public_key().public_bytes_raw().hex(), key)

    def sign(self, message: bytes) -> str:
        """The signature in hex."""
        return self._key.sign(message).hex()


def is_signed(public: str, message: bytes, signature: str) -> bool:
    """True if the holder of a public key signed this message; False also for what is no key or no signature.

    Both have one spelling: hexadecimal digits in small letters.
    """
    try:
        if any(bytes.fromhex(text).hex() != text for text in (public, signature)):
            return False
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True
