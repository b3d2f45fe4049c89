"""What only the notebooks import: figures, explorers, checks, quizzes, and the studies of single lessons."""
