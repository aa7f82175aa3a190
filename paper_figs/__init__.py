"""The figures, drawn from finished runs: a module a figure, none of which trains or reads files."""
