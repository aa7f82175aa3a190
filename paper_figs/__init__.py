"""The figures, drawn from finished runs; nothing here trains."""
