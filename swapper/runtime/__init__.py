"""Acts on the core's commands and reports what happened. Time, tasks and processes live here."""
