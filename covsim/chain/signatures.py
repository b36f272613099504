"""What has been signed and checked before, for whoever lets the same be said over and over, as the rows of a grid do.

A signature follows from key and message alone, and so does whether it fits.
"""

from __future__ import annotations

from typing import final

from covsim.chain.accounts import Account
from covsim.chain.extrinsics import Call, CommitBucket, CommitWeights, PayloadHash, Signed, sign

_SPELLED_ALIKE = (PayloadHash, CommitBucket, CommitWeights)
"""Calls of texts and whole numbers: equal ones have equal bytes. Of numbers in general that is not so: 0.0 is -0.0."""


@final
class Signatures:
    """Makes accounts, signs and checks, each thing once. It keeps all that was ever said."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[int, str], Account] = {}
        self._signed: dict[tuple[str, int, Call | bytes], Signed] = {}
        self._genuine: dict[int, Signed] = {}  # by identity; those that fit, which are kept alive

    def account(self, seed: int, name: str) -> Account:
        """The account of a name under a seed."""
        known = self._accounts.get((seed, name))
        if known is None:
            known = self._accounts[seed, name] = Account.derive(seed, name)
        return known

    def sign(self, account: Account, nonce: int, call: Call) -> Signed:
        """The call, signed."""
        key = account.public, nonce, call if isinstance(call, _SPELLED_ALIKE) else call.spelled
        known = self._signed.get(key)
        if known is None:
            known = self._signed[key] = sign(account, nonce, call)
        return known

    def is_genuine(self, signed: Signed) -> bool:
        """Whether the holder of the public key signed this very call."""
        if self._genuine.get(id(signed)) is signed:
            return True
        if not signed.is_genuine:
            return False
        self._genuine[id(signed)] = signed
        return True
