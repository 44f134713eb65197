"""Experiments: short trainings that test a suspected cause. They leave the user's model as it is."""
