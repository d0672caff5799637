"""How the pico pipeline was made, on two CPU cores and from nothing but drawn pictures.

    python -m fluxtui.demo.pretrain vae --work DIR --minutes 13       2,400 steps of batch 16
    python -m fluxtui.demo.pretrain flow --work DIR --steps 5000      24,000 pictures, batch 48, 20 to 40 minutes
    python -m fluxtui.demo.pretrain assemble --work DIR               writes demo/pico with its figures
    python -m fluxtui.demo.pretrain images                            writes demo/images

The shipped weights: as above, but stopped and resumed twice, at about steps 3,300 and 3,600, with another number of steps in
the plan (11,500, then 6,000, then 5,000), so that the learning rate began to fall at step 3,600 and not at 3,000. The
VAE's schedule is one of wall clock. So a new run gives other bytes, and the like figures.
"""
