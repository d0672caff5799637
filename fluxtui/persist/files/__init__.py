"""Files that are whole or not there, opened safely, and the formats they have."""
