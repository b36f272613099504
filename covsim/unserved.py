"""What a setting cannot serve, found out while a script runs."""


class Unserved(ValueError):
    """A script asks for what `learning` or `compute` of this scenario leaves out; says in one line what to take."""
