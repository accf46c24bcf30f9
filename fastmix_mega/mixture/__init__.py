"""The mathematics of the mixture: scores, update rules, controller, the mixture file."""
