"""The hypervisor, its techniques and host stacks. Python that acts at HS level on architectural state."""
