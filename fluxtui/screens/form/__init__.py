"""The form for a new session, and what stands beside it."""
