"""What the numbers mean: state, parameters and the rule for missing data."""
