"""What `devices.py` measures in its processes."""
