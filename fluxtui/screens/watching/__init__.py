"""What lies on disk, looked at from threads for the screens."""
