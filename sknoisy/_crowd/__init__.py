"""Several answers a row: who gave them, and the matrices of the annotators; numpy only."""
