"""Memory: how the frozen base is held (precision), where it lies (streaming), and what a run will take (the plan)."""
