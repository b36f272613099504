"""The world: bytes and seconds.

This room knows the clock of blocks and windows, links that are shared, the object store that stamps what arrives, and
how long a machine needs for a step. A payload is opaque here: no tensor enters. It may import the leaves (units,
registry, randomness, events), simpy, numpy and pydantic, and no other room.
"""
