"""A session on several machines: the keepers of the others, and what they say to each other."""
