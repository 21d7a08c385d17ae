"""Which tier and model answer a call, and why."""
