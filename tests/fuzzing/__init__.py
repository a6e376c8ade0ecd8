"""Random fits: what is drawn (`cases`), what is done (`stories`), and what must hold of it (`checks`, `judge`)."""
