"""FLUX.1: components, encoders, packing, guidance, timestep shift, targets, key names."""
