"""What is particular to a family of models; the loop, the checkpoints and the keeper know none of it."""
