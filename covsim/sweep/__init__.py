"""Many runs and what they say together: claims judged over seeds, scenarios compared in one figure.

This room may import `report`, `record`, `scenario` and what lies below, reads folders and summaries, and runs nothing
itself.
"""
