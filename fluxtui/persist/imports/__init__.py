"""Configurations of other trainers, as keys of ours."""
