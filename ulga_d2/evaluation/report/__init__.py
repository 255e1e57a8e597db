"""The report of a run: one HTML file with figures, curves and a gallery, for any browser."""
