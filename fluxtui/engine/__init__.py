"""The engine: a keeper and its trainer, one pair a session, reached as `python -m fluxtui.engine VERB`.

Nothing outside this package imports it; fronts speak with it through processes, records and control files.
"""
