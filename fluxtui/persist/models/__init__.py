"""What a model on this disk is, by names, JSON and headers; single files put together as a pipeline. No torch."""
