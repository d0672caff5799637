"""The spec: its one schema, what its keys take, its defaults, and specs made and compared."""
