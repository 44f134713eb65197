"""The fault benchmark's parts: base programs, what is planted into them, controls, baselines, and the tables."""
