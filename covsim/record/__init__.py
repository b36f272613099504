"""What a run leaves behind: its events kept and checked, its tables, summary and provenance.

This room may import everything up to `simulation`. It knows what happened and what it means for a reader; it decides
nothing. The recorder keeps, checkers watch, and files appear whole or not at all.
"""
