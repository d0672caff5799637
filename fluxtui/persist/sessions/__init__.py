"""What a session says on disk (spec, record, requests) and the state that follows from it."""
