"""The pages of the session screen."""
