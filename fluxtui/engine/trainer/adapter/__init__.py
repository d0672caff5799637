"""What is trained: LoRA and its other kinds, on the transformer and on CLIP, and its average."""
