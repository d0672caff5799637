"""The doctor: what stops a training or surprises its owner, said before any GPU time. No torch."""
