"""The parts of the fault benchmark: base programs, planted faults, healthy controls, baselines and tables."""
