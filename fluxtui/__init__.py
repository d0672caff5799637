"""FluxTUI: train FLUX LoRAs from a terminal, detached, watched and proven."""

__version__ = "0.1.0"
