"""The commit protocol on bytes, and the manifest that says how to know."""
