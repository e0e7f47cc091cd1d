"""From a recipe to a trained checkpoint."""
