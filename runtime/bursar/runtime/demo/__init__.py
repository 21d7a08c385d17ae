"""The demo's own agents, models and tenants, and the four runs that they play."""
