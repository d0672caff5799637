"""What is on the terminal: one file a screen or widget family. Knows control, gpu and persist; no torch, no PIL at import."""
