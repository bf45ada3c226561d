"""Sessions on NVIDIA GPUs.

Takes the devices that were asked for, and gives one session per GPU behind one queue.
"""
