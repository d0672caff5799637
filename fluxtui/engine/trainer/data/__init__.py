"""From pictures and captions on the disk to batches of latents and embeddings."""
