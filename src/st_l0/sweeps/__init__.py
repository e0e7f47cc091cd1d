"""Many trainings that differ in a few settings, each measured on the same collections."""
