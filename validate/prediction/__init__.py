"""Theory to network, in numbers: what the reduced map predicts of a network's oscillation, and what it does."""
