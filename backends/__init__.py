"""Worker programs: one process for each loaded model. `README.md` here is the contract they keep."""
