"""What may pass between a model and the world: guards and their verdicts."""
