"""The keeper: holds a session's lock, queues, spawns the trainer, watches it, ends it, says how it ended, has it proven.

Small libraries only: no torch, no numpy, no textual. Single-threaded; its loop never blocks on the trainer.
"""
