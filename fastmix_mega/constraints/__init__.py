"""What a mixture must keep to: shares, groups, repetition and a prior, met exactly."""
