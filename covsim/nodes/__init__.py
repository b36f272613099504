"""Where tensors meet seconds: bodies that charge every verb its bytes and time, and validators that score.

This is the only room that may import both `world` (bytes and seconds) and `learning`, `protocol`, `gauntlet`
(tensors). What crosses from tensors to time crosses in one place, `seam.py`: payload bytes and observed floats.
"""
