"""Models from the hub: asked for, explained, fetched with resume, checked byte for byte. No torch.

Not by huggingface_hub's `snapshot_download`: as of 2.x it throws a partial file away when its process ends, checks no hash, and
tells progress in steps of 10 MB. Its folder layout is kept, so that other programs find what was fetched; its client asks for
the metadata.
"""
