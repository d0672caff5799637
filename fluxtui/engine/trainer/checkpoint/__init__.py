"""All that a run is between two steps: captured, committed behind the loop, restored exactly."""
