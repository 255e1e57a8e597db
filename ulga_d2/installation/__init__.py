"""What the machine must have before training can work: how to get detectron2, how to check it all.

Standard library only, apart from `probe`, which runs in a process of its own: these modules must
work where torch or detectron2 is missing or broken.
"""
