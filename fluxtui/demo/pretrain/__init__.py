"""How the pico pipeline was made: `python -m fluxtui.demo.pretrain all --work DIR`."""
