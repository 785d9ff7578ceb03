"""The parts of Ray's insides that its tests of public behaviour import."""
