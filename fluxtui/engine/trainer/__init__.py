"""The trainer: one rank of the process that holds torch."""
