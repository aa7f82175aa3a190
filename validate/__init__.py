"""The bridge from theory and simulation to real CIFAR-10 networks: runs, groups, claims, report."""
