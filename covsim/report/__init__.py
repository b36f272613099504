"""Pictures and short tables of a run, drawn from its folder.

This room reads what `record` wrote (parquet tables, summary.json) and knows nothing of a run under way. It may import
`record` and the leaves.
"""
