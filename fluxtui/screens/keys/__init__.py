"""Keys: which action one means, the movements of every list, and keys that arrive in one burst."""
