"""What is on disk: records, session folders, locks, the commit protocol, logs and metrics.

Imports neither torch nor textual, so that the front starts in the blink of an eye and the keeper stays small.
"""
